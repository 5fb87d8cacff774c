"""From a Hydra config to a `Run`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from pacore_lab.config import spelling
from pacore_lab.config.schema import KEYS
from pacore_lab.errors import ConfigError, within
from pacore_lab.running.parts import Role, Run
from pacore_lab.sampling.names import digest

PARTS = ("strategy", "backend", "model", "problems", "grader")


@dataclass(frozen=True, kw_only=True)
class Choices:
    """How a configuration was composed. names: the option chosen in each group. overrides: the words as typed."""

    names: dict[str, str]
    overrides: list[str]


def build(config: DictConfig, choices: Choices | None = None, parts: Mapping[str, Any] | None = None) -> Run:
    """Instantiate everything (cheap: heavy objects are built later). Raises ConfigError naming the key.

    choices: None takes those of the running command. parts: objects to use in place of those that `config` describes.
    """
    choices = choices or _choices()
    for key in sorted(set(KEYS) ^ {str(key) for key in config}):
        raise ConfigError(spelling.unknown_key(key) if key in config else f"{key} was removed; leave out ~{key}")
    _complete_roles(config)
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise ConfigError(f"{missing[0]} is not set; give it on the command line: {missing[0]}=VALUE")
    settings: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    places = {key: settings.pop(key) for key in ("out", "store", "concurrency", "budget", "finish_aborted")}
    if not settings["roles"]:
        del settings["roles"]
    distinct = digest(settings)[:8]
    # A resumption must only match the kind of backend: its fingerprint covers all else that determines the samples.
    settings["backend"] = settings["backend"]["_target_"]
    for name, role in settings["roles"].items() if "roles" in settings else ():
        settings["roles"][name] = {**role, "backend": role["backend"]["_target_"]}
    given = parts or {}
    made = {key: given[key] if key in given else instantiate(config[key], _convert_="all") for key in PARTS}
    name = " ".join([choices.names["strategy"], *spelling.changes(choices.overrides)])
    asked = choices.names["problems"]
    label = "-".join([choices.names["strategy"], asked, settings["model"]["name"], f"seed{settings['seed']}"])
    out = places["out"] or f"outputs/{re.sub(r'[^A-Za-z0-9._-]+', '_', label)}-{distinct}"
    return Run(
        name=name,
        problem_set=asked,
        seed=settings["seed"],
        repeats=settings["repeats"],
        limit=settings["limit"],
        pool=settings["pool"],
        concurrency=places["concurrency"],
        roles={str(name): _role(str(name), config.roles[name]) for name in config.roles},
        budget=places["budget"],
        finish_aborted=places["finish_aborted"],
        out=Path(out),
        store=Path(places["store"]),
        settings=settings,
        **made,
    )


def _complete_roles(config: DictConfig) -> None:
    """A role without a model gets the run's; one without a backend gets one like the run's, for its model."""
    OmegaConf.set_struct(config.roles, False)
    for name, role in config.roles.items():
        if not OmegaConf.is_dict(role):
            raise ConfigError(f"roles.{name} is {role!r}; give it a model: model@roles.{name}=OPTION")
        if strange := sorted(set(role) - {"model", "backend"}):
            raise ConfigError(f"there is no key roles.{name}.{strange[0]}; a role has model and backend")
        for key in ("model", "backend"):
            if key not in role:
                role[key] = config[key]  # with its interpolations, which are relative to the role from here on
            elif not OmegaConf.is_dict(role[key]) or "_target_" not in role[key]:
                raise ConfigError(f"roles.{name}.{key} is not a {key} yet; name one first: {key}@roles.{name}=OPTION")


def _role(name: str, config: DictConfig) -> Role:
    """Instantiate a role, with its name in front of its parts' errors, which say only `model.KEY` or `backend.KEY`."""
    with within(f"roles.{name}"):
        try:
            return Role(**instantiate(config, _convert_="all"))
        except HydraException as error:
            raise ConfigError(spelling.explain(error)) from error


def _choices() -> Choices:
    if not HydraConfig.initialized():  # composed by a program, not from the command line
        return Choices(names={"strategy": "strategy", "problems": "problems"}, overrides=[])
    hydra = HydraConfig.get()
    return Choices(names=dict(hydra.runtime.choices), overrides=list(hydra.overrides.task))
