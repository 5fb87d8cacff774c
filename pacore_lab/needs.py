"""What a run asks for against what its backend can do: refused before the first token, never dropped."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

from pacore_lab.errors import ConfigError, Unsupported
from pacore_lab.interfaces import Capabilities
from pacore_lab.types import Model

NEEDS = ("logprobs", "partial", "seeds", "priority")


def needs_of(part: object) -> frozenset[str]:
    """Everything that a strategy and the parts it is made of declare in `needs`."""
    own = frozenset(getattr(part, "needs", ()))
    if is_dataclass(part):
        own = own.union(*(needs_of(getattr(part, item.name)) for item in fields(part)))
    return own


def refuse_unsupported(strategy: object, model: Model, can: Capabilities) -> None:
    """Raises Unsupported, naming the key to change."""
    needs = needs_of(strategy)
    if unknown := sorted(needs - set(NEEDS)):
        raise ConfigError(f"the strategy needs {unknown[0]!r}, which is no capability; these are: {', '.join(NEEDS)}")
    if "logprobs" in needs and not model.logprobs:
        raise Unsupported("this strategy needs log-probabilities: set model.logprobs=true")
    if model.logprobs and can.logprobs == "none":
        raise Unsupported("model.logprobs=true, but this backend gives no log-probabilities; set it to false")
    if "partial" in needs and not can.partial:
        raise Unsupported(
            "this strategy aborts trajectories, but this backend does not report what they had; name another backend="
        )
    if "seeds" in needs and can.seeds != "request":
        raise Unsupported(
            "this strategy needs a seed per trajectory, which this backend ignores; name another backend="
        )
    if "priority" in needs and not can.priority:
        raise Unsupported("this strategy needs priorities, which this backend ignores; name another")
    if model.context_length is not None and can.context_length not in (None, model.context_length):
        raise Unsupported(
            f"model.context_length is {model.context_length}, but the engine was started with {can.context_length}; "
            f"start it with the former, or set model.context_length=null to take the engine's"
        )
