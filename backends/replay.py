"""No engine: whatever a policy asks for comes from the store of an earlier run, or was never sampled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from backends._checkpoint import fingerprint, locate
from pacore_lab.errors import ConfigError, LabError, NeverSampled
from pacore_lab.interfaces import Capabilities, OnChunk, Request
from pacore_lab.types import Completion, Model


@dataclass(kw_only=True, eq=False)
class Replay:
    """Policies on a bank: use it with the store, the model, the problems and the seed of the run that filled the bank.

    run: that run's folder; the fingerprint of its trajectories and the capabilities of its backend are those of the
    replay: of the run's own model or, where that is another one, of its role with this model. A trajectory that is not
    in the store is a failure that says so, counted with the run's reasons and not stored.
    Raises ConfigError at the start for a folder that holds no run, and for one that sampled from another model: its
    trajectories would pass for this one's.
    """

    model: Model
    run: str

    _found: Mapping[str, Any] = field(init=False, default_factory=dict)

    async def start(self) -> None:
        banks = self._banks()
        differing = [self._differing(model, str(backend["fingerprint"])) for model, backend in banks]
        if all(differing):
            raise ConfigError(f"backend.run={self.run} is a bank of another model: {', '.join(differing[0])}")
        self._found = banks[differing.index([])][1]

    @property
    def capabilities(self) -> Capabilities:
        known = {item.name: self._found[item.name] for item in fields(Capabilities) if item.name in self._found}
        return Capabilities(**{**known, "replay": True, "evidence": {"bank": self.run}})

    @property
    def fingerprint(self) -> str:
        return str(self._found["fingerprint"])

    async def complete(self, request: Request, on_chunk: OnChunk | None = None) -> Completion:
        raise NeverSampled("never sampled in this bank")

    async def close(self) -> None:
        pass

    def _banks(self) -> list[tuple[Model, Mapping[str, Any]]]:
        """What the run sampled from, each model with its backend: its own first, then those of its roles."""
        try:
            settings, versions = (
                json.loads((Path(self.run) / name).read_text(encoding="utf-8"))
                for name in ("settings.json", "versions.json")
            )
            backend = versions["backend"]
            found = [(_model(settings), backend)]
            found += [(_model(settings["roles"][name]), role) for name, role in backend.get("roles", {}).items()]
            _ = [each["fingerprint"] for _, each in found]
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            raise ConfigError(
                f"backend.run={self.run} holds no run (its settings.json and versions.json are not those of one); "
                "name the folder of the bank's"
            ) from None
        return found

    def _differing(self, bank: Model, name: str) -> list[str]:
        """What of the model, and of how it is sampled, is not as it was for the bank of this fingerprint."""
        pairs = {item.name: (getattr(self.model, item.name), getattr(bank, item.name)) for item in fields(Model)}
        differing = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
        if "path" in differing and self._same_weights(bank, name):
            del differing["path"]
        return [f"model.{key} is {here!r}, there {there!r}" for key, (here, there) in differing.items()]

    def _same_weights(self, bank: Model, name: str) -> bool:
        """Whether another path leads to the same folder, or to one whose contents the bank's fingerprint names."""
        try:
            folder = locate(self.model)
            return folder is not None and (fingerprint(self.model, folder, None) in name or folder == locate(bank))
        except LabError:
            return False


def _model(settings: Mapping[str, Any]) -> Model:
    said = settings["model"]
    return Model(**{item.name: said[item.name] for item in fields(Model) if item.name in said})
