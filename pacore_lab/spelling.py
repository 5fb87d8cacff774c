"""The words of the command line: how a table repeats them, how a policy's are told apart, what a wrong key is told."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Sequence

from pacore_lab.errors import ConfigError


def changes(overrides: Sequence[str]) -> list[str]:
    """What the command line changes of a strategy and its roles, as it was typed."""
    found = []
    for text in (override.lstrip("+") for override in overrides):
        if text.startswith(("strategy.", "strategy/")):
            found.append(text[len("strategy.") :])
        elif text.startswith(("roles.", "model@roles.", "backend@roles.")):
            found.append(re.sub(r"^(model|backend)@roles\.(\w+)\.\1=", r"\1@roles.\2=", text))
    return found


def words_of(policy: str) -> list[str]:
    """Its words, as a shell would tell them apart. Raises ConfigError."""
    try:
        words = shlex.split(policy)
    except ValueError as error:
        raise ConfigError(f"{policy}: {str(error).lower()}") from None
    if not words:
        raise ConfigError("a policy is empty; write what it is, e.g. strategy=single")
    return words


def unknown_key(key: str, known: Sequence[str]) -> str:
    """known: the root keys."""
    head, _, rest = key.partition(".")
    if rest and head == "roles":
        role = f"roles.{rest.partition('.')[0]}"
        return f"there is no key {key}; a role has those of its options: model@{role}=OPTION, backend@{role}=OPTION"
    if rest and head in known:
        return f"there is no key {key}; python run.py --cfg job prints those of {head} (+{key}= adds to a free mapping)"
    close = difflib.get_close_matches(head, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"the root keys are {', '.join(known)}"
    return f"there is no key {key}; {hint}"
