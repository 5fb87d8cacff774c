"""The sampler a strategy sees: the trajectories of one episode, a (problem, repeat), with their token account."""

from __future__ import annotations

import asyncio
import functools
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace

import numpy as np

from pacore_lab.dispatch import Dispatcher, Flight
from pacore_lab.errors import ConfigError, Unsupported
from pacore_lab.store import POOL_REPEAT, SampleName, digest
from pacore_lab.types import Prompt, Trajectory


@dataclass(slots=True)
class Account:
    """Tokens of an episode. A trajectory taken from the store is charged as if it had just been generated (§3.2).

    critical_path: generated tokens along the longest chain of samples that had to wait for one another.
    discarded: generated for trajectories that were aborted or never looked at.
    """

    prompt: int = 0
    generated: int = 0
    cached: int = 0
    discarded: int = 0
    critical_path: int = 0
    sampled: int = 0
    reused: int = 0
    failed: int = 0

    @property
    def ttc(self) -> int:
        """Effective test-time compute: all generated tokens, discarded ones included."""
        return self.generated + self.discarded


@dataclass(frozen=True, slots=True)
class Drawn:
    """What remains in memory of a trajectory that was handed to the strategy."""

    round: int
    id: str
    index: int
    error: str | None
    reused: bool


class EpisodeSampler:
    """Implements `pacore_lab.interfaces.Sampler`.

    A prompt's samples have consecutive indices over all calls of an episode: a strategy that asks for 1 + 1 + 2
    gets the same trajectories as one that asks for 4. The round of a call is one more than the number of finished
    calls it could have waited for. With `pool=N`, first-round indices are drawn without replacement from N
    trajectories that all repeats of the problem share (§3.2 of arXiv 2601.05593), by a generator seeded with
    (seed, problem, repeat); pool members nobody draws are never sampled, which changes nothing for those drawn.
    """

    def __init__(
        self, dispatcher: Dispatcher, *, seed: int, problem: str, repeat: int, pool: int | None = None
    ) -> None:
        self._dispatcher = dispatcher
        self._seed = seed
        self._problem = problem
        self._repeat = repeat
        self._asked: Counter[str] = Counter()
        self._params = json.dumps(asdict(dispatcher.params), sort_keys=True)
        self._depth = 0
        self._pool: list[int] | None = None
        if pool is not None:
            key = int(digest([seed, problem, repeat]), 16)
            self._pool = np.random.Generator(np.random.PCG64(key)).permutation(pool).tolist()
        self.account = Account()
        self.drawn: list[Drawn] = []

    async def sample(self, prompt: Prompt, n: int) -> list[Trajectory]:
        async with self._open(prompt, n, partial=False) as arrivals:
            found = [trajectory async for trajectory in arrivals]
        return sorted(found, key=lambda trajectory: trajectory.index)

    @asynccontextmanager
    async def stream(self, prompt: Prompt, n: int) -> AsyncIterator[AsyncIterator[Trajectory]]:
        if not self._dispatcher.backend.capabilities.partial:
            raise Unsupported("this strategy aborts trajectories, and this backend would not count what they had")
        async with self._open(prompt, n, partial=True) as arrivals:
            yield arrivals

    @asynccontextmanager
    async def _open(self, prompt: Prompt, n: int, *, partial: bool) -> AsyncIterator[_Arrivals]:
        depth, start = self._depth + 1, self.account.critical_path
        draws = self._draws(prompt, n, depth)
        if partial:  # what is stored arrives in the order in which it once arrived
            seqs = await self._dispatcher.store.seqs([name.id for _, name in draws])
            draws.sort(key=lambda draw: (seqs.get(draw[1].id, float("inf")), draw[0]))
        arrivals = _Arrivals(
            self._dispatcher, prompt, draws, priority=self._dispatcher.priority(depth), partial=partial
        )
        try:
            yield arrivals
        finally:
            try:
                await arrivals.close()
            finally:
                self._depth = max(self._depth, depth)
                self._book(arrivals, depth, start)

    def _draws(self, prompt: Prompt, n: int, depth: int) -> list[tuple[int, SampleName]]:
        if n < 1:
            raise ValueError(f"a strategy asked for {n} trajectories; it must ask for 1 or more")
        key = digest(prompt)
        first = self._asked[key]
        self._asked[key] += n
        pool = self._pool if depth == 1 else None
        if pool is not None and first + n > len(pool):
            raise ConfigError(f"pool={len(pool)} is smaller than the {first + n} first-round trajectories asked for")
        return [
            (
                index,
                SampleName(
                    fingerprint=self._dispatcher.backend.fingerprint,
                    prompt=key,
                    params=self._params,
                    seed=self._seed,
                    problem=self._problem,
                    repeat=self._repeat if pool is None else POOL_REPEAT,
                    index=index if pool is None else pool[index],
                ),
            )
            for index in range(first, first + n)
        ]

    def _book(self, arrivals: _Arrivals, depth: int, start: int) -> None:
        account = self.account
        for trajectory in arrivals.seen:
            done = trajectory.completion
            account.prompt += done.prompt_tokens
            account.generated += done.generated_tokens
            account.cached += done.cached_tokens
            account.critical_path = max(account.critical_path, start + done.generated_tokens)
            account.failed += trajectory.error is not None
            account.reused += trajectory.reused
            account.sampled += not trajectory.reused and trajectory.error is None
            self.drawn.append(Drawn(depth, trajectory.id, trajectory.index, trajectory.error, trajectory.reused))
        account.discarded += arrivals.discarded


class _Arrivals:
    """Launches the draws of one call as slots come free and hands the trajectories out as they finish."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        prompt: Prompt,
        draws: list[tuple[int, SampleName]],
        *,
        priority: tuple[int, int],
        partial: bool,
    ) -> None:
        self.seen: list[Trajectory] = []
        self.discarded = 0
        self._dispatcher = dispatcher
        self._prompt = prompt
        self._draws = draws
        self._priority = priority
        self._partial = partial
        self._flights: dict[int, Flight] = {}
        self._landed: asyncio.Queue[tuple[int, bool, asyncio.Task[Trajectory]]] = asyncio.Queue()
        self._launcher = asyncio.create_task(self._launch())

    async def _launch(self) -> None:
        for index, name in self._draws:
            await self._dispatcher.slots.acquire(self._priority)
            flight = self._dispatcher.board(name, self._prompt, self._priority, partial=self._partial)
            self._flights[index] = flight
            flight.task.add_done_callback(functools.partial(self._land, index, flight.waiters > 1))

    def _land(self, index: int, joined: bool, task: asyncio.Task[Trajectory]) -> None:
        self._dispatcher.slots.release()
        self._landed.put_nowait((index, joined, task))

    def __aiter__(self) -> _Arrivals:
        return self

    async def __anext__(self) -> Trajectory:
        if len(self.seen) == len(self._draws):
            raise StopAsyncIteration
        index, joined, task = await self._landed.get()
        flight = self._flights.pop(index)
        try:
            trajectory = task.result()
            trajectory = replace(trajectory, index=index, reused=trajectory.reused or joined)
        finally:
            self._dispatcher.leave(flight)
        self.seen.append(trajectory)
        return trajectory

    async def close(self) -> None:
        """Abort what is under way, all at once: a second cancellation finds nothing left to do. Then wait for it."""
        self._launcher.cancel()
        left = list(self._flights.values())
        for flight in left:
            self._dispatcher.leave(flight)
        ours = [flight.task for flight in left if flight.waiters == 0]
        await asyncio.wait([self._launcher, *ours])
        self.discarded = sum(flight.spent for flight in left)
