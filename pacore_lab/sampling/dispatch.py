"""From names to trajectories: slots, retries, the store, and nothing sampled twice.

One `Dispatcher` per model serves all episodes of a run. A draw takes a slot (at most `concurrency`; later rounds first,
then first come, first served), looks in the store, samples if it must, and returns once the trajectory is on disk.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from pacore_lab.errors import ConfigError, EngineDead, NeverSampled, RequestError, TransientError
from pacore_lab.interfaces import Backend, Chunk, OnChunk, Request
from pacore_lab.sampling.budget import Budget
from pacore_lab.sampling.names import SampleName
from pacore_lab.sampling.store import Store
from pacore_lab.types import Completion, Prompt, SamplingParams, Trajectory

ABORTED = "aborted"


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """Retries transient faults after base, 2 base, 4 base ... seconds (at most `cap`, then ±25 % jitter)."""

    attempts: int = 9
    base: float = 0.5
    cap: float = 20.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.base < 0 or self.cap < self.base:
            raise ValueError(f"retry is {self}: attempts must be 1 or more and 0 <= base <= cap (seconds)")

    def delay(self, attempt: int, asked: float | None) -> float:
        """Seconds before try number attempt + 1. asked: a server's Retry-After, honoured up to ten minutes."""
        if asked is not None:
            return min(asked, 600.0)
        return min(self.cap, self.base * 2.0 ** (attempt - 1)) * random.uniform(0.75, 1.25)


@dataclass(slots=True)
class Counters:
    """The numbers that a progress display shows; updated in place."""

    running: int = 0
    sampled: int = 0
    reused: int = 0
    failed: int = 0
    retries: int = 0
    generated_tokens: int = 0


class Slots:
    """At most `limit` holders; waiters are served by priority (lowest first)."""

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ConfigError(f"concurrency is {limit}; it must be 1 or more")
        self._free = limit
        self._queue: list[tuple[tuple[int, ...], int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    async def acquire(self, priority: tuple[int, ...]) -> None:
        if self._free and not self._queue:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (priority, next(self._order), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()  # the slot was granted at the moment of cancellation
            raise

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def release(self) -> None:
        while self._queue:
            _, _, turn = heapq.heappop(self._queue)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


@dataclass(slots=True, eq=False)
class Flight:
    """A trajectory being sampled, shared by all callers that asked for its name; the last to leave aborts it."""

    name: SampleName
    prompt: Prompt
    params: SamplingParams
    task: asyncio.Task[Trajectory] = field(init=False)
    waiters: int = 0
    tokens: int = 0
    spent_before: int = 0
    text: list[str] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    watchers: list[Callable[[], None]] = field(default_factory=list)

    def add(self, chunk: Chunk) -> None:
        self.tokens += chunk.tokens
        self.text.append(chunk.text)
        self.confidences += chunk.confidences
        for watcher in self.watchers:
            watcher()

    def so_far(self, finish_reason: str = "running") -> Completion:
        return Completion(
            content="".join(self.text),
            finish_reason=finish_reason,
            generated_tokens=self.tokens,
            confidences=tuple(self.confidences) or None,
        )

    @property
    def spent(self) -> int:
        """Tokens generated so far, or by the aborted attempt of an earlier run if that got further."""
        if self.task.done() and not self.task.cancelled() and self.task.exception() is None:
            return self.task.result().completion.generated_tokens
        return max(self.tokens, self.spent_before)


class Dispatcher:
    """Takes trajectories from the store or samples them. budget: shared by a run's dispatchers; None for no limit.

    finish_aborted: when nothing else waits, finish aborted trajectories for the store; no episode is charged for them.
    Raises ConfigError for a concurrency below 1.
    """

    def __init__(
        self,
        *,
        backend: Backend,
        store: Store,
        params: SamplingParams,
        concurrency: int,
        retry: Retry | None = None,
        budget: Budget | None = None,
        finish_aborted: bool = False,
    ) -> None:
        self.backend = backend
        self.store = store
        self.params = params
        self.counters = Counters()
        self.slots = Slots(concurrency)
        self._retry = retry or Retry()
        self._flights: dict[str, Flight] = {}
        self._tickets = itertools.count()
        self._exhausted = 0
        self.budget = budget or Budget()
        self._finish_aborted = finish_aborted
        self._idle: set[asyncio.Task[None]] = set()

    def priority(self, depth: int) -> tuple[int, int]:
        """The priority of all samples of one call: later rounds first, then first come, first served."""
        return (-depth, next(self._tickets))

    def board(
        self,
        name: SampleName,
        prompt: Prompt,
        priority: tuple[int, int],
        *,
        params: SamplingParams | None = None,
        partial: bool = False,
        schema: str | None = None,
    ) -> Flight:
        """Join or start the flight of that name; the caller holds a slot and must `leave` afterwards.

        params: None for the dispatcher's own. partial: count tokens as they are generated, so that an abort can be
        charged. schema: see `Request`. The name must cover params and schema.
        The flight's task raises EngineDead or StoreError; every other failure is recorded in its trajectory.
        """
        flight = self._flights.get(name.id)
        if flight is None:
            flight = self._flights[name.id] = Flight(name, prompt, params or self.params)
            flight.task = asyncio.create_task(self._fly(flight, priority, partial, schema))
        flight.waiters += 1
        return flight

    def leave(self, flight: Flight) -> None:
        """The last caller to leave an unfinished flight aborts it; its task ends when the engine has let go."""
        flight.waiters -= 1
        if flight.waiters == 0:
            del self._flights[flight.name.id]
            flight.task.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody awaits it now
            if self._finish_aborted and not flight.task.done():
                idle = asyncio.create_task(self._finish(flight))
                self._idle.add(idle)
                idle.add_done_callback(self._idle.discard)
            flight.task.cancel()  # does nothing to a finished one

    async def _finish(self, aborted: Flight) -> None:
        """Sample an aborted trajectory again, to its end, after everything else."""
        last = (1, next(self._tickets))
        await asyncio.wait([aborted.task])
        await self.slots.acquire(last)
        try:
            flight = self.board(aborted.name, aborted.prompt, last, params=aborted.params)
            try:
                await asyncio.wait([flight.task])
            finally:
                self.leave(flight)
        finally:
            self.slots.release()

    async def settle(self) -> None:
        """Wait until `finish_aborted` has nothing left to do."""
        while self._idle:
            await asyncio.wait(self._idle)

    async def close(self) -> None:
        """Cancel everything that `finish_aborted` still has to do."""
        self._finish_aborted = False
        for task in list(self._idle):
            task.cancel()
        await self.settle()

    async def _fly(self, flight: Flight, priority: tuple[int, int], partial: bool, schema: str | None) -> Trajectory:
        name, identity, prompt = flight.name, flight.name.id, flight.prompt
        stored = (await self.store.get([identity])).get(identity)
        if stored is not None and stored.error is None:
            self.counters.reused += 1
            return Trajectory(
                id=identity, index=name.index, completion=stored.completion, reused=True, arrival=stored.seq
            )
        if stored is not None and stored.error == ABORTED:
            flight.spent_before = stored.completion.generated_tokens
        request = Request(
            id=identity,
            prompt=prompt,
            params=flight.params,
            seed=name.engine_seed,
            priority=priority[0],
            schema=schema,
        )
        error = None
        self.counters.running += 1
        try:
            completion = await self._complete(request, flight, partial)
        except NeverSampled as failure:  # a replayed store stays as it is
            self.counters.failed += 1
            nothing = Completion(content="", finish_reason="error")
            return Trajectory(id=identity, index=name.index, completion=nothing, error=f"failed: {failure}")
        except RequestError as failure:
            error = f"failed: {failure}"
            completion = Completion(content="", finish_reason="error")
        except asyncio.CancelledError:
            if flight.tokens > flight.spent_before:
                self.store.put_later(name, prompt, flight.so_far("abort"), ABORTED)
            raise
        finally:
            self.counters.running -= 1
        kept = await self.store.put(name, prompt, completion, error)
        self.counters.sampled += kept.error is None
        self.counters.failed += kept.error is not None
        self.counters.generated_tokens += completion.generated_tokens
        return Trajectory(id=identity, index=name.index, completion=kept.completion, error=kept.error, arrival=kept.seq)

    async def _complete(self, request: Request, flight: Flight, partial: bool) -> Completion:
        """Ask the engine, with retries after transient faults; it counts as dead once eight requests in a row fail."""
        on_chunk: OnChunk | None = flight.add if partial else None
        for attempt in itertools.count(1):
            flight.text.clear()
            flight.confidences.clear()
            flight.tokens = 0
            try:
                completion = await self.backend.complete(request, on_chunk)
            except TransientError as fault:
                if attempt >= self._retry.attempts:
                    self._exhausted += 1
                    if self._exhausted >= 8:
                        raise EngineDead(
                            f"{self._exhausted} requests in a row failed after {attempt} tries, the last: {fault}; "
                            "what was sampled is stored, the same command resumes"
                        ) from None
                    raise RequestError(f"{fault} (after {attempt} tries)") from None
                self.counters.retries += 1
                await asyncio.sleep(self._retry.delay(attempt, fault.retry_after))
            else:
                self._exhausted = 0
                return completion
        raise AssertionError("unreachable")
