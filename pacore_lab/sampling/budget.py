"""What a whole study may spend (`budget=` on the command line)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Budget:
    """The token budget that all episodes, models and roles of a study share.

    tokens: nothing more is started once this many are charged; None for no limit. charged: tokens so far, reused and
    discarded ones included.
    """

    tokens: int | None = None
    charged: int = 0

    @property
    def spent(self) -> bool:
        return self.tokens is not None and self.charged >= self.tokens
