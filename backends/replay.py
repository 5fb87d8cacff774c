"""No engine: whatever a policy asks for comes from the store of an earlier run, or was never sampled."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pacore_lab.errors import ConfigError, NeverSampled
from pacore_lab.interfaces import Capabilities, OnChunk, Request
from pacore_lab.types import Completion, Model


@dataclass(kw_only=True, eq=False)
class Replay:
    """Policies on a bank: use it with the store, the model, the problems and the seed of the run that filled the bank.

    run: that run's folder; its trajectories' fingerprint and its backend's capabilities are those of the replay. A
    trajectory that is not in the store is a failure that says so, counted with the run's reasons and not stored.
    Raises ConfigError at the start for a folder that holds no run.
    """

    model: Model
    run: str

    _found: dict[str, Any] = field(init=False, default_factory=dict)

    async def start(self) -> None:
        path = Path(self.run) / "versions.json"
        try:
            self._found = json.loads(path.read_text())["backend"]
        except (OSError, ValueError, KeyError):
            raise ConfigError(f"backend.run={self.run} holds no run ({path}); name the folder of the bank's") from None

    @property
    def capabilities(self) -> Capabilities:
        known = {item.name: self._found[item.name] for item in fields(Capabilities) if item.name in self._found}
        return Capabilities(**{**known, "recorded": True, "evidence": {"bank": self.run}})

    @property
    def fingerprint(self) -> str:
        return str(self._found["fingerprint"])

    async def complete(self, request: Request, on_chunk: OnChunk | None = None) -> Completion:
        raise NeverSampled("never sampled in this bank")

    async def close(self) -> None:
        pass
