"""What a strategy or option needs and a backend lacks is refused before the first token."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pacore_lab.errors import ConfigError, Unsupported
from pacore_lab.interfaces import Capabilities
from pacore_lab.running.needs import needs_of, refuse_unsupported
from pacore_lab.types import Model
from tests import doubles

ABLE = Capabilities(seeds="request", logprobs="chosen", partial=True, priority=True, context_length=100)
MODEL = Model(name="m", logprobs=True)


@dataclass(frozen=True)
class Part:
    needs = frozenset({"logprobs"})


@dataclass(frozen=True)
class Whole:
    part: Part
    needs = frozenset({"partial", "seeds", "priority"})


@dataclass(frozen=True)
class Modest:
    part: Any = None


def test_a_strategy_needs_what_its_parts_need() -> None:
    assert needs_of(Whole(Part())) == {"logprobs", "partial", "seeds", "priority"}
    assert needs_of(Modest(Modest(Part()))) == {"logprobs"}
    refuse_unsupported(Whole(Part()), MODEL, ABLE)
    refuse_unsupported(Modest(), replace(MODEL, logprobs=False), Capabilities())


@pytest.mark.parametrize(
    ("lacking", "words"),
    [
        ({"logprobs": "none"}, "model.logprobs=true, but this backend"),
        ({"partial": False}, "aborts trajectories"),
        ({"seeds": "engine"}, "a seed per trajectory"),
        ({"priority": False}, "needs priorities"),
    ],
)
def test_what_is_lacking_is_refused_by_name(lacking: dict[str, Any], words: str) -> None:
    with pytest.raises(Unsupported, match=words):
        refuse_unsupported(Whole(Part()), MODEL, replace(ABLE, **lacking))


def test_log_probabilities_have_to_be_asked_for() -> None:
    with pytest.raises(Unsupported, match=r"set model\.logprobs=true"):
        refuse_unsupported(Modest(Part()), replace(MODEL, logprobs=False), ABLE)


def test_a_need_nobody_knows_is_a_mistake() -> None:
    """A misspelt need would otherwise never be checked."""
    part = Modest()
    object.__setattr__(part, "needs", {"logprob"})
    with pytest.raises(ConfigError, match=r"'logprob', which is not a capability; these are: logprobs"):
        refuse_unsupported(part, MODEL, ABLE)


@pytest.mark.parametrize("length", [99, 101])
def test_another_context_length_than_asked_for_is_refused(length: int) -> None:
    """Published results need the published context; a server cannot be given another one from outside."""
    with pytest.raises(Unsupported, match=rf"model\.context_length is {length}, but the engine was started with 100"):
        refuse_unsupported(Modest(), replace(MODEL, context_length=length), ABLE)
    refuse_unsupported(Modest(), replace(MODEL, context_length=100), ABLE)
    refuse_unsupported(Modest(), replace(MODEL, context_length=length), replace(ABLE, context_length=None))


async def test_streaming_is_refused_where_aborted_tokens_would_not_be_counted(tmp_path: Path) -> None:
    """A strategy that forgot to declare it would report too little test-time compute."""
    backend = doubles.Scripted()
    backend.capabilities = Capabilities(seeds="request")
    async with doubles.dispatcher(backend, tmp_path) as dispatch:
        with pytest.raises(Unsupported, match="would not count"):
            async with doubles.episode(dispatch).stream(doubles.user("x"), 2):
                pass
    assert backend.requests == []
