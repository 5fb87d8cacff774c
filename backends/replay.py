"""No engine: all that a policy asks for comes from an earlier run's store, or was never sampled."""

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
    """Replays policies from a store: use it with the store, model, problems and seed of the run that filled the store.

    run: that run's folder. The replay takes over the fingerprint and capabilities of the run's own backend or, if that
    sampled another model, of the role with this model. A trajectory that is not in the store is a failure that says so;
    it is counted among the run's reasons and not stored.
    Raises ConfigError at the start for a folder that holds no run, and for a run of another model: its trajectories
    would pass for this model's.
    """

    model: Model
    run: str

    _found: Mapping[str, Any] = field(init=False, default_factory=dict)

    async def start(self) -> None:
        sampled = self._sampled()
        differing = [self._differing(model, str(backend["fingerprint"])) for model, backend in sampled]
        if all(differing):
            raise ConfigError(f"backend.run={self.run} is a run of another model: {', '.join(differing[0])}")
        self._found = sampled[differing.index([])][1]

    @property
    def capabilities(self) -> Capabilities:
        known = {item.name: self._found[item.name] for item in fields(Capabilities) if item.name in self._found}
        return Capabilities(**{**known, "replay": True, "evidence": {"run": self.run}})

    @property
    def fingerprint(self) -> str:
        return str(self._found["fingerprint"])

    async def complete(self, request: Request, on_chunk: OnChunk | None = None) -> Completion:
        raise NeverSampled("never sampled for this store")

    async def close(self) -> None:
        pass

    def _sampled(self) -> list[tuple[Model, Mapping[str, Any]]]:
        """The models that the run sampled, each with its backend: the run's own first, then those of its roles."""
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
                "name the folder of the run that filled the store"
            ) from None
        return found

    def _differing(self, other: Model, name: str) -> list[str]:
        """The fields in which this model differs from the run's, whose fingerprint is `name`."""
        pairs = {item.name: (getattr(self.model, item.name), getattr(other, item.name)) for item in fields(Model)}
        differing = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
        if "path" in differing and self._same_weights(other, name):
            del differing["path"]
        return [f"model.{key} is {here!r}, there {there!r}" for key, (here, there) in differing.items()]

    def _same_weights(self, other: Model, name: str) -> bool:
        """Whether another path leads to the same folder, or to one whose contents the run's fingerprint names."""
        try:
            folder = locate(self.model)
            return folder is not None and (fingerprint(self.model, folder, None) in name or folder == locate(other))
        except LabError:
            return False


def _model(settings: Mapping[str, Any]) -> Model:
    said = settings["model"]
    return Model(**{item.name: said[item.name] for item in fields(Model) if item.name in said})
