"""From a run's stored settings back to its parts, and to policies that replay its store."""

from __future__ import annotations

import copy
import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError

from pacore_lab.config import spelling
from pacore_lab.config.schema import composing
from pacore_lab.errors import ConfigError
from pacore_lab.interfaces import Grader, ProblemSet, PromptBuilder, Strategy
from pacore_lab.types import Model


def regrading(settings: Mapping[str, Any], words: Sequence[str]) -> tuple[Grader, dict[str, Any], ProblemSet]:
    """The grader that `grader=...` and `grader.key=value` describe, its settings, and the run's problem set.

    Without `grader=...` the words change the run's own grader. Raises ConfigError.
    """
    if strange := [word for word in words if not word.startswith(("grader=", "grader.", "backend@grader.", "model@"))]:
        raise ConfigError(f"{strange[0]}: only grader=OPTION and grader.key=value change what a regrading does")
    if any("=" not in word for word in words):
        raise ConfigError("write key=value, for instance grader=math")
    if any(word.startswith("grader=") for word in words):
        with composing():
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


def parts_of(settings: Mapping[str, Any]) -> tuple[Model, ProblemSet, Grader]:
    """The model, problem set and grader of a finished run, rebuilt from its settings."""
    model, problems, grader = (instantiate(settings[key], _convert_="all") for key in ("model", "problems", "grader"))
    return model, problems, grader


def policies_of(settings: Mapping[str, Any], spelled: Sequence[str], grader: Grader) -> list[tuple[str, Strategy]]:
    """Builds the strategies that run.py-style overrides describe, with a name for each.

    Comma-separated values give several. The strategies compare answers with `grader`, and take the seed, model and
    problems from `settings`. Raises ConfigError.
    """
    found = []
    composed = functools.lru_cache(maxsize=None)(lambda *groups: compose("config", list(groups)))
    with composing():
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
                told = [word.removeprefix("strategy=").removeprefix("strategy.") for word in spelling.shown(choice)]
                found.append((" ".join(told), instantiate(config.strategy, _convert_="all")))
    return found


def _choices_of(words: Sequence[str]) -> list[tuple[str, ...]]:
    """Every combination of the words' comma-separated values, the last word's changing fastest. Raises ConfigError."""
    options: list[list[str]] = []
    for override in OverridesParser.create().parse_overrides(spelling.spelt(words)):
        key = override.get_key_element()
        if not key.startswith("strategy"):
            raise ConfigError(f"{override.input_line}: a policy is made of strategy=, strategy/PART= and strategy.key=")
        sweeping = override.is_sweep_override()
        options.append(
            [f"{key}={v}" for v in override.sweep_string_iterator()] if sweeping else [str(override.input_line)]
        )
    return list(itertools.product(*options))


def prompt_builder(settings: Mapping[str, Any]) -> PromptBuilder:
    """P(x, M) of a run's strategy, rebuilt from the run's settings. Raises ConfigError if the strategy has none."""
    if "prompt" not in settings["strategy"]:
        raise ConfigError(f"{settings['strategy']['_target_']} has no prompt of its own: it shows no messages")
    builder: PromptBuilder = instantiate(settings["strategy"]["prompt"], _convert_="all")
    return builder
