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
"""The root of a server -> None if it is there, else what is the matter with it."""


@dataclass(slots=True, eq=False)
class Server:
    """root: its base URL. in_flight: our requests that it holds. away: why it counts as away, None while present.

    calm_at: when (on the loop's clock) it wants to be asked again. since: when it went away, local time.
    """

    root: str
    in_flight: int = 0
    away: str | None = None
    since: str = ""
    calm_at: float = 0.0
    watch: asyncio.Task[None] | None = field(default=None, repr=False)


class Servers:
    """The servers of a run. They are taken to be present until `lost` says otherwise; `check` finds them again.

    interval: seconds between two checks of a server that is away.
    patience: seconds without any server after which a run ends.
    """

    def __init__(self, roots: Sequence[str], *, check: Check, interval: float, patience: float) -> None:
        self.all = [Server(root) for root in roots]
        self._check, self._interval, self._patience = check, interval, patience
        self._clock = asyncio.get_running_loop().time
        self._any = asyncio.Event()  # set while one server or more is present
        self._any.set()
        self._dark_since = 0.0
        self._closed = False

    def ranked(self, key: bytes) -> list[Server]:
        """All servers, in the order in which they suit requests of that key (rendezvous hashing).

        The same key has the same order in every run, and a server that leaves moves only its own keys.
        """
        if len(self.all) == 1:
            return self.all
        name = blake2b(key, digest_size=16).digest()
        return sorted(self.all, key=lambda server: blake2b(server.root.encode(), key=name, digest_size=8).digest())

    def pick(self, ranked: Sequence[Server], tried: Collection[Server] = ()) -> Server | None:
        """The best of the present servers that were not tried; None if there is none.

        That is the first in rank, whose prefix cache holds the prompt, unless it has clearly more to do than another.
        A server that asked to be left alone is taken only if all did (the first to be free), never for a second try.
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
        """Seconds until a present server that was not tried, because it is avoided, may be asked."""
        waits = [server.calm_at for server in self.all if server.away is None and server not in tried]
        return max(min(waits, default=math.inf) - self._clock(), 0.0)

    def lost(self, server: Server, reason: str) -> None:
        """The server is away until `check` finds it; it is asked at once, and then every `interval` seconds."""
        if server.away is not None or self._closed:
            return
        server.away, server.since = reason, time.strftime("%Y-%m-%d %H:%M:%S")
        if all(other.away is not None for other in self.all):
            self._any.clear()
            self._dark_since = self._clock()
        server.watch = asyncio.create_task(self._until_back(server))

    async def some(self) -> None:
        """Returns when a server is present. Raises EngineDead when there was none for `patience` seconds."""
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
        self._closed = True  # a request that loses its connection now is no news of its server
        watches = [server.watch for server in self.all if server.watch is not None]
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)

    async def _until_back(self, server: Server) -> None:
        said = ""
        while (reason := await self._check(server.root)) is not None:  # None at once: just a connection that broke
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
