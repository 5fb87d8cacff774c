"""What a whole study may spend (`budget=` on the command line)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Budget:
    """Tokens after which nothing more is launched, and those charged so far: a study's, whoever was asked for them.

    Those of all episodes count, reused and discarded ones included. tokens: None for no end.
    """

    tokens: int | None = None
    charged: int = 0

    @property
    def spent(self) -> bool:
        return self.tokens is not None and self.charged >= self.tokens
