"""The words of the command line: repeating them in a table, splitting a policy into them, explaining a wrong one."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Sequence

from hydra.errors import HydraException
from omegaconf.errors import InterpolationKeyError

from pacore_lab.config.schema import KEYS
from pacore_lab.errors import ConfigError, LabError


def changes(overrides: Sequence[str]) -> list[str]:
    """The command line's changes to a strategy and its roles, as typed."""
    found = []
    for text in shown([override.lstrip("+") for override in overrides]):
        if text.startswith(("strategy.", "strategy/")):
            found.append(text[len("strategy.") :])
        elif text.startswith(("roles.", "model@roles.", "backend@roles.")):
            found.append(re.sub(r"^(model|backend)@roles\.(\w+)\.\1=", r"\1@roles.\2=", text))
    return found


def shown(words: Sequence[str]) -> list[str]:
    """Without the option that `spelt` adds for a prompt from a file."""
    of_a_file = any(word.startswith("strategy.prompt.path=") for word in words)
    return [word for word in words if not (of_a_file and word == "strategy/prompt=file")]


def words_of(policy: str) -> list[str]:
    """A policy's words, split as a shell would. Raises ConfigError."""
    try:
        words = shlex.split(policy)
    except ValueError as error:
        raise ConfigError(f"{policy}: {str(error).lower()}") from None
    if not words:
        raise ConfigError("a policy is empty; write what it is, e.g. strategy=single")
    return words


def unknown_key(key: str) -> str:
    head, _, rest = key.partition(".")
    if "/" in head and head.partition("/")[0] in KEYS:
        group, _, part = head.partition("/")
        return f"there is no {head} here: the {group} chosen has no {part} to choose"
    if rest and head == "roles":
        role = f"roles.{rest.partition('.')[0]}"
        return f"there is no key {key}; a role has the keys of its options: model@{role}=OPTION, backend@{role}=OPTION"
    if rest and head in KEYS:
        return f"there is no key {key}; python run.py --cfg job prints those of {head} (+{key}= adds to a free mapping)"
    close = difflib.get_close_matches(head, KEYS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"the root keys are {', '.join(KEYS)}"
    return f"there is no key {key}; {hint}"


def spelt(words: Sequence[str]) -> list[str]:
    """The command line as Hydra expects it."""
    words = [re.sub(r"^strategy/schedule=(?=\[)", "strategy.schedule.widths=", word) for word in words]
    of_a_file = any(word.startswith("strategy.prompt.path=") for word in words)
    if of_a_file and not any(word.startswith("strategy/prompt=") for word in words):
        words = ["strategy/prompt=file", *words]
    words = [re.sub(r"^(model|backend)@roles\.(\w+)=", r"+\1@roles.\2.\1=", word) for word in words]
    return [re.sub(r"^(?=\w+(\.\w+)+=\{)", "++", word) for word in words]


def explain(error: BaseException) -> str:
    """An error as one line. A plug-in's own ValueError loses Hydra's wrapping."""
    while isinstance(error, HydraException) and isinstance(error.__cause__, (LabError, ValueError, HydraException)):
        error = error.__cause__
    text = str(error)
    if type(error) is ValueError and (listed := re.search(r"^invalid literal for int\(\) with base 10: '(\w+)'", text)):
        return f"there is no key {listed.group(1)} in a list; give the whole list, e.g. strategy.schedule=[8,2]"
    if isinstance(error, InterpolationKeyError) and (absent := re.search(r"'([^']+)' not found", text)):
        key = error.full_key
        return f"{key} takes its value from {absent.group(1)}, which the options chosen do not have; set {key}=VALUE"
    if unknown := re.search(r"Could not override '([^']+)'", text):
        return unknown_key(unknown.group(1))
    text = text.partition("Config search path")[0]
    lines = [line.strip() for line in text.splitlines()]
    return " ".join(
        line for line in lines if line and not line.startswith(("object_type", "reference_type", "Set the env"))
    )
