"""Which server a request goes to, and what happens while servers are away; no HTTP."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from pacore_lab.errors import EngineDead

log = logging.getLogger(__name__)

Check = Callable[[str], Awaitable[str | None]]
"""The root of a server -> None if the server is there, else what is wrong with it."""


@dataclass(slots=True, eq=False)
class Server:
    """root: its base URL. in_flight: how many of our requests it holds. away: why it is away, None while it is present.

    calm_at: when it may be asked again, on the loop's clock. since: when it went away, in local time.
    """

    root: str
    in_flight: int = 0
    away: str | None = None
    since: str = ""
    calm_at: float = 0.0
    watch: asyncio.Task[None] | None = field(default=None, repr=False)


class Servers:
    """The servers of a run. A server counts as present until `lost` is called for it, and again once `check` finds it.

    interval: seconds between two checks of a server that is away.
    patience: seconds without any server after which a run ends.
    """

    def __init__(self, roots: Sequence[str], *, check: Check, interval: float, patience: float) -> None:
        self.all = [Server(root) for root in roots]
        self._check, self._interval, self._patience = check, interval, patience
        self._clock = asyncio.get_running_loop().time
        self._any = asyncio.Event()  # set while at least one server is present
        self._any.set()
        self._dark_since = 0.0
        self._closed = False

    def ranked(self, key: bytes) -> list[Server]:
        """All servers, the best for this key first (rendezvous hashing).

        A key has the same order in every run, and a server that goes away moves only its own keys.
        """
        if len(self.all) == 1:
            return self.all
        name = blake2b(key, digest_size=16).digest()
        return sorted(self.all, key=lambda server: blake2b(server.root.encode(), key=name, digest_size=8).digest())

    def pick(self, ranked: Sequence[Server], tried: Collection[Server] = ()) -> Server | None:
        """The best of the present servers that are not in `tried`; None if there is none.

        This is the first in rank, whose prefix cache holds the prompt, unless it is clearly busier than another. If
        a server asked to be left alone, it is picked only if all did (the first to be free), never for a second try.
        """
        there = [server for server in ranked if server.away is None and server not in tried]
        now = self._clock()
        calm = [server for server in there if server.calm_at <= now]
        if not calm:
            return min(there, key=lambda server: server.calm_at) if there and not tried else None
        least = min(server.in_flight for server in calm)
        if calm[0].in_flight <= least + max(8, least // 4):
            return calm[0]
        return min(calm, key=lambda server: server.in_flight)

    def avoid(self, server: Server, seconds: float) -> None:
        server.calm_at = max(server.calm_at, self._clock() + min(seconds, 600.0))

    def calm_in(self, tried: Collection[Server]) -> float:
        """Seconds until the first present server that is not in `tried` may be asked; infinite if there is none."""
        waits = [server.calm_at for server in self.all if server.away is None and server not in tried]
        return max(min(waits, default=math.inf) - self._clock(), 0.0)

    def lost(self, server: Server, reason: str) -> None:
        """Marks the server as away until `check` finds it. It is checked at once, and then every `interval` seconds."""
        if server.away is not None or self._closed:
            return
        server.away, server.since = reason, time.strftime("%Y-%m-%d %H:%M:%S")
        if all(other.away is not None for other in self.all):
            self._any.clear()
            self._dark_since = self._clock()
        server.watch = asyncio.create_task(self._until_back(server))

    async def some(self) -> None:
        """Waits until a server is present. Raises EngineDead if there is none for `patience` seconds."""
        while not self._any.is_set():
            try:
                async with asyncio.timeout_at(self._dark_since + self._patience):
                    await self._any.wait()
            except TimeoutError:
                raise EngineDead(
                    f"no server has answered for {self._patience:g} s (backend.patience): {self._absences()}; "
                    "what was sampled is stored, the same command resumes"
                ) from None

    async def close(self) -> None:
        self._closed = True  # from now on a lost connection says nothing about its server
        watches = [server.watch for server in self.all if server.watch is not None]
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)

    async def _until_back(self, server: Server) -> None:
        said = ""
        while (reason := await self._check(server.root)) is not None:  # None at once: only a connection broke
            server.away = reason
            if reason != said:
                others = sum(other.away is None for other in self.all)
                left = f"{others} of {len(self.all)} servers left" if others else f"waiting up to {self._patience:g} s"
                log.warning("%s is away (%s); %s", server.root, reason, left)
            said = reason
            await asyncio.sleep(self._interval)
        if said:
            log.warning("%s is back; it was away since %s", server.root, server.since)
        server.away = None
        self._any.set()

    def _absences(self) -> str:
        return ", ".join(f"{server.root} away since {server.since} ({server.away})" for server in self.all)
