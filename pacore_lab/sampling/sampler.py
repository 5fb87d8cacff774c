"""The sampler a strategy sees: the trajectories of one episode, a (problem, repeat), with their token account."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from pacore_lab.errors import BudgetSpent, ConfigError, Unsupported
from pacore_lab.sampling.arrivals import Draw, Live, Replayed
from pacore_lab.sampling.claims import Claims
from pacore_lab.sampling.dispatch import Dispatcher
from pacore_lab.sampling.names import POOL_REPEAT, canonical, digest, named
from pacore_lab.types import Prompt, Trajectory


@dataclass(slots=True)
class Account:
    """Tokens of an episode. A trajectory taken from the store is charged as if it had just been generated (§3.2).

    critical_path: generated tokens along the longest chain of samples that had to wait for one another.
    discarded: tokens of the `aborted` trajectories, including those that finished unseen.
    roles: generated and discarded tokens for each role that the strategy names.
    """

    prompt: int = 0
    generated: int = 0
    cached: int = 0
    discarded: int = 0
    critical_path: int = 0
    sampled: int = 0
    reused: int = 0
    failed: int = 0
    aborted: int = 0
    roles: dict[str, int] = field(default_factory=dict)

    @property
    def ttc(self) -> int:
        """Effective test-time compute: all generated tokens, discarded ones included."""
        return self.generated + self.discarded


@dataclass(frozen=True, slots=True)
class Sampled:
    """The facts kept in memory about a trajectory that was handed to the strategy.

    first: it answers the episode's first prompt, in the first round.
    """

    round: int
    id: str
    index: int
    error: str | None
    reused: bool
    role: str | None = None
    first: bool = True


class EpisodeSampler:
    """Implements `pacore_lab.interfaces.Sampler`.

    A prompt's samples have consecutive indices over all calls of an episode: a strategy that asks for 1 + 1 + 2
    gets the same trajectories as one that asks for 4. The round of a call is one more than the latest round among the
    finished calls and the open streams. With `pool=N`, samples of the episode's first prompt are drawn without
    replacement from N trajectories that all repeats of the problem share (§3.2 of arXiv 2601.05593), by a generator
    seeded with (seed, problem, repeat). Pool members that nobody draws are never sampled, which does not affect the
    others. Later calls that exceed the pool draw the repeat's own trajectories.
    roles: the dispatchers of roles with models of their own. claims: settles `claim`.
    lacking: the number of trajectories that a replayed store lacks (`Replayed.lacking`).
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        seed: int,
        problem: str,
        repeat: int,
        pool: int | None = None,
        roles: Mapping[str, Dispatcher] | None = None,
        claims: Claims | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._seed = seed
        self._problem = problem
        self._repeat = repeat
        self._roles = roles or {}
        self._claims = claims or Claims([(problem, repeat)])
        self._asked: Counter[tuple[str, str]] = Counter()
        self._first: tuple[str, str] | None = None
        self._depth = 0
        self._streams: list[tuple[int, int, Live | Replayed]] = []  # open ones: round, critical path at their start
        self._pool: list[int] | None = None
        if pool is not None:
            key = int(digest([seed, problem, repeat]), 16)
            self._pool = np.random.Generator(np.random.PCG64(key)).permutation(pool).tolist()
        self.account = Account()
        self.drawn: list[Sampled] = []
        self.claimed: tuple[float, int] | None = None
        self.lacking = 0

    @property
    def spent(self) -> int:
        return self.account.ttc

    async def sample(
        self, prompt: Prompt, n: int, *, role: str | None = None, max_tokens: int | None = None
    ) -> list[Trajectory]:
        async with self._open(prompt, n, role, max_tokens, partial=False) as arrivals:
            found = [trajectory async for trajectory in arrivals]
        return sorted(found, key=lambda trajectory: trajectory.index)

    @asynccontextmanager
    async def stream(
        self, prompt: Prompt, n: int, *, role: str | None = None, every: int | None = None
    ) -> AsyncIterator[Live | Replayed]:
        if not self._of(role).backend.capabilities.partial:
            raise Unsupported("this strategy aborts trajectories, and this backend would not count their tokens")
        if every is not None and every < 1:
            raise ValueError(f"a strategy wants running trajectories every {every} tokens; it must be 1 or more")
        async with self._open(prompt, n, role, None, partial=True, every=every) as arrivals:
            yield arrivals

    async def claim(self, weight: float, trajectories: int) -> int:
        self.claimed = (weight, trajectories)
        return await self._claims.claim((self._problem, self._repeat), weight, trajectories)

    def _of(self, role: str | None) -> Dispatcher:
        return self._roles.get(role or "", self._dispatcher)

    @asynccontextmanager
    async def _open(
        self,
        prompt: Prompt,
        n: int,
        role: str | None,
        max_tokens: int | None,
        *,
        partial: bool,
        every: int | None = None,
    ) -> AsyncIterator[Live | Replayed]:
        dispatcher = self._of(role)
        if dispatcher.budget.spent:
            raise BudgetSpent
        params = dispatcher.params
        if max_tokens is not None:
            params = replace(params, max_tokens=min(max_tokens, params.max_tokens or max_tokens))
        depth = max(self._depth, *(within for within, _, _ in self._streams), 0) + 1
        start = max(self.account.critical_path, *(begun + stream.clock for _, begun, stream in self._streams), 0)
        key = (dispatcher.backend.fingerprint, digest(prompt))
        draws = self._draws(key, n, canonical(params))
        arrivals: Live | Replayed | None = None
        replay = dispatcher.backend.capabilities.replay
        if partial or replay:
            rows = await dispatcher.store.get([name.id for _, name in draws])
            done = {identity: row for identity, row in rows.items() if row.error is None}
            if replay or len(done) == len(draws):
                arrivals = Replayed(dispatcher, draws, rows, every=every)
            else:  # stored trajectories arrive in their original order
                draws.sort(key=lambda draw: (done[draw[1].id].seq if draw[1].id in done else float("inf"), draw[0]))
        if arrivals is None:
            priority = dispatcher.priority(depth)
            arrivals = Live(dispatcher, prompt, draws, params=params, priority=priority, partial=partial, every=every)
        stream = (depth, start, arrivals)
        if partial:
            self._streams.append(stream)
        try:
            yield arrivals
        finally:
            if partial:
                self._streams.remove(stream)
            try:
                await arrivals.close()
            finally:
                self._depth = max(self._depth, depth)
                self.lacking += arrivals.lacking
                self._book(arrivals, depth, start, role, first=depth == 1 and key == self._first)

    def _draws(self, key: tuple[str, str], n: int, params: str) -> list[Draw]:
        if n < 1:
            raise ValueError(f"a strategy asked for {n} trajectories; it must ask for 1 or more")
        fingerprint, prompt = key
        self._first = self._first or key
        begun = self._asked[key]
        self._asked[key] += n
        pool = self._pool if key == self._first and self._pool else []
        if pool and n > len(pool) and not begun:
            raise ConfigError(f"pool={len(pool)} is smaller than the {n} first-round trajectories asked for")
        return [
            (index, named(fingerprint, prompt, params, self._seed, self._problem, *self._member(index, pool)))
            for index in range(begun, begun + n)
        ]

    def _member(self, index: int, pool: list[int]) -> tuple[int, int]:
        """The repeat and index that name a draw: a pool member's, or the repeat's own."""
        return (POOL_REPEAT, pool[index]) if index < len(pool) else (self._repeat, index)

    def _book(self, arrivals: Live | Replayed, depth: int, start: int, role: str | None, *, first: bool) -> None:
        account, before = self.account, self.account.ttc
        for trajectory in arrivals.seen:
            done = trajectory.completion
            account.prompt += done.prompt_tokens
            account.generated += done.generated_tokens
            account.cached += done.cached_tokens
            account.failed += trajectory.error is not None
            account.reused += trajectory.reused
            account.sampled += not trajectory.reused and trajectory.error is None
            self.drawn.append(
                Sampled(depth, trajectory.id, trajectory.index, trajectory.error, trajectory.reused, role, first)
            )
        account.critical_path = max(account.critical_path, start + arrivals.clock)
        account.discarded += arrivals.discarded
        account.aborted += arrivals.aborted
        if role is not None:
            account.roles[role] = account.roles.get(role, 0) + account.ttc - before
