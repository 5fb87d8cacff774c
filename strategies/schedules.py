"""How many trajectories each round samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pacore_lab.interfaces import Plan
from pacore_lab.types import Round


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """K = [K_1 .. K_Rhat], then the last round of one trajectory, which `widths` leaves out (paper section 2.1).

    low = [4], medium = [16], high = [32, 4]; [] is a single sample.
    """

    widths: Sequence[int]

    def __post_init__(self) -> None:
        listed = isinstance(self.widths, Sequence) and not isinstance(self.widths, str)
        if not listed or not all(type(width) is int and width >= 1 for width in self.widths):
            raise ValueError(
                f"strategy.schedule.widths is {self.widths!r}; give whole numbers of 1 or more, e.g. [32,4] "
                "(the last round of one trajectory is added)"
            )

    def __call__(self, rounds: Sequence[Round]) -> Plan | None:
        widths = (*self.widths, 1)
        return Plan(width=widths[len(rounds)]) if len(rounds) < len(widths) else None
