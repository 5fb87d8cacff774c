"""Waiting for what nothing announces: a condition and a deadline, never a time that should do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Raises TimeoutError if it does not come about."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
