"""`run(...)`: what `python run.py` does, called from Python."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pacore_lab.config.build import PARTS, Choices, build
from pacore_lab.config.schema import KEYS, ROOT
from pacore_lab.config.spelling import explain, spelt
from pacore_lab.errors import ConfigError
from pacore_lab.running.parts import Run, described
from pacore_lab.running.run import execute
from pacore_lab.running.waiting import finished


def run(*words: str, **values: Any) -> Path:
    """Compose a run as the command line does, run it, and return its folder; the same call resumes.

    words: as on the command line, "strategy=pacore_high" or "problems.n=20".
    values: the same as keyword arguments, `repeats=4`. A strategy, backend, model, problem set or grader may be an
    object: `run("problems=search", strategy=PaCoRe([8, 2]))`.
    Works in a notebook, whose event loop is running already. Raises LabError with one line.
    """
    return finished(execute(composed(*words, **values)))


def composed(*words: str, **values: Any) -> Run:
    """The `Run` that `run` would execute. Raises ConfigError."""
    parts = {key: value for key, value in values.items() if key in PARTS and not isinstance(value, str)}
    spelled = [f"{key}={_value(key, value)}" for key, value in values.items() if key not in parts]
    try:
        config, choices = _compose([*words, *spelled])
        OmegaConf.set_struct(config, False)
        for key, part in parts.items():
            config[key] = described(part)
            choices.names[key] = type(part).__name__
        return build(config, choices, parts)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error)) from error


def _compose(words: Sequence[str]) -> tuple[DictConfig, Choices]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", spelt(words), return_hydra_config=True)
    hydra = config.hydra
    choices = Choices(names=dict(hydra.runtime.choices), overrides=list(hydra.overrides.task))
    return OmegaConf.masked_copy(config, KEYS), choices


def _value(key: str, value: Any) -> str:
    """A value as the command line spells it. Raises ConfigError for a value that it cannot spell."""
    if value is None:
        return "null"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(_value(key, each) for each in value)}]"
    if isinstance(value, (bool, int, float)):
        return str(value).lower()
    if isinstance(value, (str, Path)):
        text = str(value)
        plain = re.fullmatch(r"[\w./@-]+", text) is not None
        return text if plain else "'" + re.sub(r"(\\*)'", r"\1\1\\'", text) + "'"
    raise ConfigError(f"{key} is {value!r:.80}; give text, a number, true or false, None, or a list of these")
