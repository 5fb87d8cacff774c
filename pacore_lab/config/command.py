"""Hydra on the command line: its main, and one line for a user's mistake."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import re
import sys
from collections.abc import Callable
from typing import NoReturn, ParamSpec

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from pacore_lab.config.spelling import explain, spelt
from pacore_lab.errors import LabError

P = ParamSpec("P")
_HYDRAS = re.compile(r"Config group override|^invalid literal for int\(\) with base 10: '[a-z_]+'")
"""ValueErrors by which Hydra refuses what a user wrote."""


def one_line_errors(function: Callable[P, None]) -> Callable[P, None]:
    """A user's mistake ends in one line on stderr and exit code 2, an interrupt in exit code 130.

    Anything else is a bug and shows its traceback. HYDRA_FULL_ERROR makes Hydra raise its errors, which it would
    otherwise print over several lines.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except (LabError, HydraException, OmegaConfBaseException, ValueError) as error:
            if type(error) is ValueError and not _HYDRAS.search(str(error)):
                raise  # a bug
            if isinstance(error.__context__, KeyboardInterrupt):  # OmegaConf turns it into an error of its own
                _interrupted()
            print(f"error: {explain(error)}", file=sys.stderr)
            sys.exit(2)
        except (KeyboardInterrupt, asyncio.CancelledError):
            _interrupted()
        except BrokenPipeError:  # python run.py --help | head
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    return wrapped


def _interrupted() -> NoReturn:
    print("interrupted; what was sampled is stored, the same command resumes", file=sys.stderr)
    sys.exit(130)


def launch(main: Callable[[], None]) -> None:
    """Run Hydra's main on the command line, with three liberties.

    `strategy/schedule=[8,2]` is short for the schedule's widths. A mapping may bring keys of its own
    (`backend.extra_body={top_k: 20}`), for which Hydra wants `++`. `model@roles.judge=NAME` (or `backend@...`) gives a
    role its model (or backend).
    """
    sys.argv[1:] = spelt(sys.argv[1:])
    one_line_errors(main)()
    gc.freeze()  # the process ends: the collector need not look at an engine's millions of objects once more
