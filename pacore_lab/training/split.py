"""Checks that training and evaluation problems are disjoint; otherwise the evaluation says nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pacore_lab.errors import ConfigError
from pacore_lab.sampling.names import digest
from pacore_lab.types import Prompt, text_of


def same_problem(conversation: Prompt) -> str:
    """A digest of a conversation's roles and texts, ignoring white space: equal for the same problem."""
    return digest([[turn["role"], " ".join(text_of(turn["content"]).split())] for turn in conversation])


def require_disjoint(training: Mapping[str, Prompt], evaluation: Iterable[Prompt], name: str) -> None:
    """Raises ConfigError if a conversation is in both.

    training: conversations by the ids of their problems. name: the evaluation's, for the message.
    """
    held_out = {same_problem(conversation) for conversation in evaluation}
    shared = [key for key, conversation in training.items() if same_problem(conversation) in held_out]
    if shared:
        raise ConfigError(
            f"{len(shared)} of {len(training)} training problems are also asked in {name}, the first is {shared[0]!r}; "
            "leave them out of one of the two"
        )
