"""From a Hydra config to a `Run`, and from its errors to one line. The only core module that knows Hydra."""

from __future__ import annotations

import asyncio
import copy
import functools
import itertools
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NoReturn, ParamSpec

from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.utils import instantiate
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, InterpolationKeyError, OmegaConfBaseException

from pacore_lab import spelling
from pacore_lab.errors import ConfigError, LabError, within
from pacore_lab.interfaces import Grader, ProblemSet, PromptBuilder, Strategy
from pacore_lab.names import digest
from pacore_lab.run import Role, Run
from pacore_lab.types import Model

P = ParamSpec("P")
_ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Config:
    """The root keys; `conf/config.yaml` says what each one is."""

    strategy: Any = MISSING
    backend: Any = MISSING
    model: Any = MISSING
    problems: Any = MISSING
    grader: Any = MISSING
    seed: int = 0
    repeats: int = 1
    limit: int | None = None
    concurrency: int = 256
    pool: int | None = None
    roles: dict[str, Any] = field(default_factory=dict)
    budget: int | None = None
    finish_aborted: bool = False
    out: str | None = None
    store: str = "outputs/store.sqlite"


KEYS = [field.name for field in fields(Config)]


class Extensions(SearchPathPlugin):
    """Installed packages add their `conf/` folder by an entry point of the group `pacore_lab` (CONTRIBUTING.md)."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for point in entry_points(group="pacore_lab"):
            search_path.append(provider=point.name, path=f"pkg://{point.value}.conf")


Plugins.instance().register(Extensions)
ConfigStore.instance().store(name="schema", node=Config)
OmegaConf.register_new_resolver("repo", lambda path: str(_ROOT / path), replace=True)


def build(config: DictConfig) -> Run:
    """Instantiate everything (cheap: heavy objects are built later). Raises ConfigError naming the key."""
    for key in sorted(set(KEYS) ^ {str(key) for key in config}):
        raise ConfigError(
            spelling.unknown_key(key, KEYS) if key in config else f"{key} was taken away; leave out ~{key}"
        )
    _complete_roles(config)
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise ConfigError(f"{missing[0]} is not set; give it on the command line: {missing[0]}=VALUE")
    settings: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    places = {key: settings.pop(key) for key in ("out", "store", "concurrency", "budget", "finish_aborted")}
    if not settings["roles"]:
        del settings["roles"]
    distinct = digest(settings)[:8]
    # Of the backend, a resumption has to match the kind only: what else decides the samples is in its fingerprint.
    settings["backend"] = settings["backend"]["_target_"]
    for name, role in settings["roles"].items() if "roles" in settings else ():
        settings["roles"][name] = {**role, "backend": role["backend"]["_target_"]}
    choices, overrides = _choices()
    parts = {
        key: instantiate(config[key], _convert_="all") for key in ("strategy", "backend", "model", "problems", "grader")
    }
    name = " ".join([choices["strategy"], *spelling.changes(overrides)])
    label = "-".join([choices["strategy"], choices["problems"], settings["model"]["name"], f"seed{settings['seed']}"])
    out = places["out"] or f"outputs/{re.sub(r'[^A-Za-z0-9._-]+', '_', label)}-{distinct}"
    return Run(
        name=name,
        problem_set=choices["problems"],
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
        **parts,
    )


def _complete_roles(config: DictConfig) -> None:
    """A role that names no model has the run's, one that names no backend has one like the run's, for its model."""
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
                raise ConfigError(f"roles.{name}.{key} is no {key} yet; name one first: {key}@roles.{name}=OPTION")


def _role(name: str, config: DictConfig) -> Role:
    """Its parts complain about `model.KEY` and `backend.KEY`, and do not know whose they are."""
    with within(f"roles.{name}"):
        try:
            return Role(**instantiate(config, _convert_="all"))
        except HydraException as error:
            raise ConfigError(explain(error)) from error


def regrading(settings: Mapping[str, Any], words: Sequence[str]) -> tuple[Grader, dict[str, Any], ProblemSet]:
    """The grader that `grader=...` and `grader.key=value` name, its settings, and the problems of a run.

    Without `grader=...` the words change the run's own grader. Raises ConfigError.
    """
    if strange := [word for word in words if not word.startswith(("grader=", "grader.", "backend@grader.", "model@"))]:
        raise ConfigError(f"{strange[0]}: only grader=OPTION and grader.key=value change what a regrading does")
    if any("=" not in word for word in words):
        raise ConfigError("write key=value, for instance grader=math")
    if any(word.startswith("grader=") for word in words):
        with initialize_config_dir(str(_ROOT / "conf"), version_base="1.3"):
            config = compose("config", list(words)).grader
    else:
        config = OmegaConf.create({"grader": dict(settings["grader"])})
        OmegaConf.set_struct(config, True)
        try:
            config = OmegaConf.merge(config, OmegaConf.from_dotlist(list(words))).grader
        except ConfigKeyError as error:
            raise ConfigError(f"the run's grader has no key {error.full_key}; name another with grader=") from None
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise ConfigError(f"{missing[0]} is not set; give it: {missing[0]}=VALUE")
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    grader = instantiate(config, _convert_="all")
    return grader, resolved, instantiate(settings["problems"], _convert_="all")


def bank(settings: Mapping[str, Any]) -> tuple[Model, ProblemSet, Grader]:
    """What a finished run sampled from, asked and graded by; settings: the run's."""
    model, problems, grader = (instantiate(settings[key], _convert_="all") for key in ("model", "problems", "grader"))
    return model, problems, grader


def policies(settings: Mapping[str, Any], spelled: Sequence[str], grader: Grader) -> list[tuple[str, Strategy]]:
    """The strategies that words as of run.py's command line spell, each with its name; comma-separated values: several.

    They compare answers by `grader`, whatever else they take from the config is as in `settings`. Raises ConfigError.
    """
    found = []
    composed = functools.lru_cache(maxsize=None)(lambda *groups: compose("config", list(groups)))
    with initialize_config_dir(str(_ROOT / "conf"), version_base="1.3"):
        for words in spelled:
            for choice in _choices_of(spelling.words_of(words)):
                values = [word for word in choice if re.match(r"strategy\.", word)]  # composing is the slow part
                config = copy.deepcopy(composed(*(word for word in choice if word not in values)))
                for value in OverridesParser.create().parse_overrides(values):
                    OmegaConf.update(config, value.get_key_element(), value.value())
                OmegaConf.set_struct(config, False)
                config._set_flag("allow_objects", True)
                config.merge_with({key: settings[key] for key in ("seed", "model", "problems")})
                config.grader = grader
                if missing := sorted(OmegaConf.missing_keys(config.strategy)):
                    raise ConfigError(f"{missing[0]} is not set; give it: {missing[0]}=VALUE")
                name = " ".join(word.removeprefix("strategy=").removeprefix("strategy.") for word in choice)
                found.append((name, instantiate(config.strategy, _convert_="all")))
    return found


def _choices_of(words: Sequence[str]) -> list[tuple[str, ...]]:
    """Every combination of the words' comma-separated values, the last word's changing fastest. Raises ConfigError."""
    options: list[list[str]] = []
    for override in OverridesParser.create().parse_overrides(spelt(words)):
        key = override.get_key_element()
        if not key.startswith("strategy"):
            raise ConfigError(f"{override.input_line}: a policy is made of strategy=, strategy/PART= and strategy.key=")
        sweeping = override.is_sweep_override()
        options.append(
            [f"{key}={v}" for v in override.sweep_string_iterator()] if sweeping else [str(override.input_line)]
        )
    return list(itertools.product(*options))


def prompt_builder(settings: Mapping[str, Any]) -> PromptBuilder:
    """P(x, M) as a run's strategy had it; settings: the run's. Raises ConfigError where its strategy has none."""
    if "prompt" not in settings["strategy"]:
        raise ConfigError(f"{settings['strategy']['_target_']} has no prompt of its own: it shows no messages")
    builder: PromptBuilder = instantiate(settings["strategy"]["prompt"], _convert_="all")
    return builder


def _choices() -> tuple[dict[str, str], list[str]]:
    if not HydraConfig.initialized():  # composed by a program, not from the command line
        return {"strategy": "strategy", "problems": "problems"}, []
    hydra = HydraConfig.get()
    return dict(hydra.runtime.choices), list(hydra.overrides.task)


def one_line_errors(function: Callable[P, None]) -> Callable[P, None]:
    """Users' mistakes end in one line on stderr and exit code 2; an interrupt in 130. Anything else is a bug: it shows.

    Hydra would print its own errors over several lines, so it is told to raise them.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except (LabError, HydraException, OmegaConfBaseException, ValueError) as error:
            if type(error) is ValueError and "Config group override" not in str(error):
                raise  # not Hydra's: a bug
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


def command(main: Callable[[], None]) -> None:
    """Run Hydra's main on the command line, read with two liberties.

    `strategy/schedule=[8,2]` is short for the schedule's widths, a mapping may bring keys of its own
    (`backend.extra_body={top_k: 20}`), for which Hydra wants `++`, and `model@roles.judge=NAME` (or `backend@...`)
    gives a role its model.
    """
    sys.argv[1:] = spelt(sys.argv[1:])
    one_line_errors(main)()


def spelt(words: Sequence[str]) -> list[str]:
    """The command line as Hydra wants it."""
    words = [re.sub(r"^strategy/schedule=(?=\[)", "strategy.schedule.widths=", word) for word in words]
    words = [re.sub(r"^(model|backend)@roles\.(\w+)=", r"+\1@roles.\2.\1=", word) for word in words]
    return [re.sub(r"^(?=\w+(\.\w+)+=\{)", "++", word) for word in words]


def explain(error: BaseException) -> str:
    """One line. A plug-in's own ValueError is taken out of Hydra's wrapping."""
    while isinstance(error, HydraException) and isinstance(error.__cause__, (LabError, ValueError, HydraException)):
        error = error.__cause__
    text = str(error)
    if isinstance(error, InterpolationKeyError) and (absent := re.search(r"'([^']+)' not found", text)):
        key = error.full_key
        return f"{key} takes its value from {absent.group(1)}, which the options chosen do not have; set {key}=VALUE"
    if unknown := re.search(r"Could not override '([^']+)'", text):
        return spelling.unknown_key(unknown.group(1), KEYS)
    text = text.partition("Config search path")[0]
    lines = [line.strip() for line in text.splitlines()]
    return " ".join(
        line for line in lines if line and not line.startswith(("object_type", "reference_type", "Set the env"))
    )
