"""Redirects the output of an engine in this process."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from multiprocessing import resource_tracker


@contextlib.contextmanager
def output_to(handle: int) -> Iterator[None]:
    """Redirects to a file the output of this process and of the children it starts meanwhile: engines use the terminal.

    The children ignore a Ctrl-C too: the run ends them.
    """
    resource_tracker.ensure_running()  # before the signal is blocked: starting it unblocks the signal
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # for this thread and the processes it starts
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, old in zip((1, 2), kept, strict=True):
            os.dup2(old, number)
            os.close(old)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
