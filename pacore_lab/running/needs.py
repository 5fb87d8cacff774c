"""Checks a run's needs against its backend: an unmet need is refused before the first token, never dropped."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

from pacore_lab.errors import ConfigError, Unsupported
from pacore_lab.interfaces import Capabilities, needs_of
from pacore_lab.types import Model

NEEDS = ("logprobs", "top_logprobs", "partial", "prefill", "seeds", "priority", "answers")


def roles_of(part: object) -> dict[str, frozenset[str]]:
    """The roles that a strategy and its parts ask (fields `role` and `roles`), each with the needs of those parts."""
    found: dict[str, frozenset[str]] = {}
    if is_dataclass(part):
        for item in fields(part):
            value = getattr(part, item.name)
            for role in _names(value) if item.name in ("role", "roles") else ():
                found[role] = found.get(role, frozenset()) | needs_of(part)
            for role, needs in roles_of(value).items():
                found[role] = found.get(role, frozenset()) | needs
    return found


def _names(asked: object) -> list[str]:
    """The names in one role, a list, or a list of lists; none for a part that asks the run's own model."""
    if isinstance(asked, (list, tuple)):
        return [name for each in asked for name in _names(each)]
    return [asked] if isinstance(asked, str) else []


def refuse_unsupported(strategy: object, model: Model, can: Capabilities) -> None:
    """Raises Unsupported if the backend cannot do what the strategy needs, naming the key to change."""
    refuse(needs_of(strategy), model, can)


def refuse_role(strategy: object, role: str, model: Model, can: Capabilities) -> None:
    """The same for a role with a model of its own. Raises ConfigError for a role that the strategy does not ask."""
    roles = roles_of(strategy)
    if role not in roles:
        named = f"its roles are {', '.join(sorted(roles))}" if roles else "it asks none"
        raise ConfigError(f"roles.{role} is given a model, but the strategy asks no such role; {named}")
    refuse(roles[role], model, can, f"roles.{role}.")


def refuse(needs: frozenset[str], model: Model, can: Capabilities, at: str = "") -> None:
    """at: the config prefix of the model and its backend, "" or "roles.NAME."."""
    engine = f"backend@{at[:-1]}=" if at else "backend="
    if unknown := sorted(needs - set(NEEDS)):
        raise ConfigError(
            f"the strategy needs {unknown[0]!r}, which is not a capability; these are: {', '.join(NEEDS)}"
        )
    if "logprobs" in needs and not model.logprobs:
        raise Unsupported(f"this strategy needs log-probabilities: set {at}model.logprobs=true")
    if "top_logprobs" in needs and not model.top_logprobs:
        raise Unsupported(
            f"this strategy needs the confidence of each token: set {at}model.logprobs=true {at}model.top_logprobs=20"
        )
    if model.logprobs and can.logprobs == "none":
        raise Unsupported(f"{at}model.logprobs=true, but this backend gives no log-probabilities; set it to false")
    if model.top_logprobs and can.logprobs != "topk":
        raise Unsupported(
            f"{at}model.top_logprobs is {model.top_logprobs}, but this backend gives log-probabilities of the chosen "
            "tokens only; set it to 0"
        )
    if can.most_top_logprobs is not None and model.top_logprobs > can.most_top_logprobs:
        raise Unsupported(
            f"{at}model.top_logprobs is {model.top_logprobs}, but this backend gives {can.most_top_logprobs} at most"
        )
    if "partial" in needs and not can.partial:
        raise Unsupported(
            f"this strategy aborts trajectories, but this backend does not report their tokens; name another {engine}"
        )
    if "prefill" in needs and not can.prefill:
        raise Unsupported(
            f"this strategy continues an assistant turn, which this backend cannot do; name another {engine}"
        )
    if "seeds" in needs and can.seeds != "request":
        raise Unsupported(
            f"this strategy needs a seed per trajectory, which this backend ignores; name another {engine}"
        )
    if "priority" in needs and not can.priority:
        raise Unsupported("this strategy needs priorities, which this backend ignores; name another")
    if model.context_length is not None and can.context_length not in (None, model.context_length):
        raise Unsupported(
            f"{at}model.context_length is {model.context_length}, but the engine was started with "
            f"{can.context_length}; start it with the former, or set {at}model.context_length=null to take the engine's"
        )
