"""`run(...)`: what `python run.py` does, called from Python."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from pacore_lab.config.build import PARTS, Choices, build
from pacore_lab.config.schema import composing
from pacore_lab.config.spelling import explain, spelt
from pacore_lab.errors import ConfigError
from pacore_lab.running.describing import described
from pacore_lab.running.parts import Run, model_of, require_part_of_a_run
from pacore_lab.running.run import execute
from pacore_lab.running.waiting import finished


def run(*words: str, **values: Any) -> Path:
    """Compose a run as the command line does, run it, and return its folder; the same call resumes.

    words: as on the command line, "strategy=pacore_high" or "problems.n=20".
    values: the same as keyword arguments, `repeats=4`; text arrives as it is. A strategy, backend, model, problem set
    or grader may be an object: `run("problems=search", strategy=PaCoRe([8, 2]))`. A backend brings its own model.
    Works in a notebook, whose event loop is running already. Raises LabError with one line.
    """
    return finished(execute(composed(*words, **values)))


def composed(*words: str, **values: Any) -> Run:
    """The `Run` that `run` would execute. Raises ConfigError."""
    if wrong := [word for word in words if not isinstance(word, str)]:
        raise ConfigError(f'{wrong[0]!r:.80} is not a word of the command line; write text such as "strategy=pacore"')
    parts = _parts(values)
    chosen = [f"{key}={value}" for key, value in values.items() if key not in parts and _is_choice(key)]
    plain = {key: value for key, value in values.items() if key not in parts and not _is_choice(key)}
    _refuse_twice(words, values)
    try:
        config, choices = _compose([*words, *chosen])
        for key, value in plain.items():
            OmegaConf.update(config, key, _plain(key, value))
            choices.overrides.append(f"{key}={value}")
        with open_dict(config):
            for key, part in parts.items():
                config[key] = described(part)
                choices.names[key] = type(part).__name__
        return build(config, choices, parts)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error)) from error


def _parts(values: Mapping[str, Any]) -> dict[str, Any]:
    """The parts that are given as objects, with the model that a backend brings."""
    parts = {key: value for key, value in values.items() if key in PARTS and not isinstance(value, str)}
    for key, part in parts.items():
        require_part_of_a_run(key, part)
    own = model_of(parts.get("backend"))
    if own is not None and "model" in values and values["model"] != own:
        raise ConfigError(f"model is given beside a backend that samples with {own.name!r}; leave model out")
    return parts if own is None else parts | {"model": own}


def _is_choice(key: str) -> bool:
    """Whether a key chooses an option of a group, rather than setting a value."""
    return key in PARTS or re.search(r"[/@+~]", key) is not None


def _refuse_twice(words: Sequence[str], values: Mapping[str, Any]) -> None:
    """A word beside an argument for the same key, or beside an object that it cannot change."""
    for word in words:
        key = word.lstrip("+~").partition("=")[0]
        part = re.split(r"[./@]", key)[0]
        own = part == "model" and model_of(values.get("backend")) is not None
        if key in values or own or (part in values and part in PARTS and not isinstance(values[part], str)):
            raise ConfigError(f"{part} is given twice, by {word!r} and as an argument; leave one out")


def _compose(words: Sequence[str]) -> tuple[DictConfig, Choices]:
    with composing():
        config = compose("config", spelt(words), return_hydra_config=True)
    hydra = config.hydra
    choices = Choices(names=dict(hydra.runtime.choices), overrides=list(hydra.overrides.task))
    with open_dict(config):
        del config["hydra"]
    return config, choices


def _plain(key: str, value: Any) -> Any:
    """A value that a configuration can hold. Raises ConfigError."""
    if isinstance(value, (list, tuple)):
        return [_plain(key, each) for each in value]
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str) and "${" in value:
        part = key.partition(".")[0]
        raise ConfigError(f"{key} holds '${{', which a configuration reads as a reference; give {part} as an object")
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if callable(getattr(value, "item", None)):  # a number of numpy
        return value.item()
    raise ConfigError(f"{key} is {value!r:.80}; give text, a number, true or false, None, or a list of these")
