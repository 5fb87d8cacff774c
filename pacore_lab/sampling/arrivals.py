"""The trajectories of one call as they finish, sampled by an engine or replayed from a store.

`Live` and `Replayed` are `pacore_lab.interfaces.Arrivals`. A live call starts its draws as slots come free; stored ones
arrive at once. A call whose draws are all stored is replayed: its trajectories arrive in their original order.
If any came from the store, an aborted trajectory is charged as if all of them had started together and run at the same
speed. A policy therefore costs the same when replayed from a store as it would live.
"""

from __future__ import annotations

import asyncio
import functools
import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

from pacore_lab.errors import BudgetSpent
from pacore_lab.sampling.dispatch import ABORTED, Dispatcher, Flight
from pacore_lab.sampling.names import SampleName
from pacore_lab.sampling.store import Stored
from pacore_lab.types import Completion, Prompt, SamplingParams, Trajectory

Draw = tuple[int, SampleName]
"""A place among the samples of a prompt, and the name of the trajectory drawn there."""


class Live:
    """Starts draws as slots come free. every: hand out a running trajectory each time it has this many more tokens.

    seen: the finished trajectories handed out. clock: tokens of the longest one handed out, running or finished.
    aborted, discarded: the number of trajectories not waited for, and their tokens; valid once closed.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        prompt: Prompt,
        draws: Sequence[Draw],
        *,
        params: SamplingParams,
        priority: tuple[int, int],
        partial: bool,
        every: int | None = None,
    ) -> None:
        self.seen: list[Trajectory] = []
        self.aborted = 0
        self.discarded = 0
        self.clock = 0
        self.lacking = 0
        self._dispatcher, self._prompt, self._draws, self._params = dispatcher, prompt, draws, params
        self._priority, self._partial, self._every = priority, partial, every
        self._flights: dict[int, Flight] = {}
        self._left: dict[int, Flight] = {}
        self._marks: dict[int, int] = {}
        self._events: asyncio.Queue[tuple[int, bool] | None] = asyncio.Queue()
        self._launcher = asyncio.create_task(self._launch())

    async def _launch(self) -> None:
        for index, name in self._draws:
            await self._dispatcher.slots.acquire(self._priority)
            if self._dispatcher.budget.spent:
                self._dispatcher.slots.release()
                self._events.put_nowait(None)
                return
            flight = self._dispatcher.board(
                name, self._prompt, self._priority, params=self._params, partial=self._partial
            )
            self._flights[index] = flight
            if self._every is not None:
                flight.watchers.append(functools.partial(self._grew, index, flight))
            flight.task.add_done_callback(functools.partial(self._land, index, flight.waiters > 1))

    def _grew(self, index: int, flight: Flight) -> None:
        assert self._every is not None
        if flight.tokens // self._every > self._marks.get(index, 0):
            self._marks[index] = flight.tokens // self._every
            self._events.put_nowait((index, False))

    def _land(self, index: int, joined: bool, task: asyncio.Task[Trajectory]) -> None:
        if not task.cancelled() and task.exception() is None:
            self._dispatcher.budget.charged += task.result().completion.generated_tokens
        self._dispatcher.slots.release()
        self._events.put_nowait((index, joined))

    def __aiter__(self) -> Live:
        return self

    async def __anext__(self) -> Trajectory:
        while len(self.seen) + len(self._left) < len(self._draws):
            event = await self._events.get()
            if event is None:
                raise BudgetSpent
            index, joined = event
            flight = self._flights.get(index)
            if flight is None:
                continue  # aborted, or handed out before its last mark was read
            if not flight.task.done():
                self.clock = max(self.clock, flight.tokens)
                return Trajectory(id=flight.name.id, index=index, completion=flight.so_far(), running=True)
            del self._flights[index]
            try:
                trajectory = flight.task.result()
            finally:
                self._dispatcher.leave(flight)
            trajectory = replace(trajectory, index=index, reused=trajectory.reused or joined)
            self.seen.append(trajectory)
            self.clock = max(self.clock, trajectory.completion.generated_tokens)
            return trajectory
        raise StopAsyncIteration

    def abort(self, trajectory: Trajectory) -> None:
        flight = self._flights.pop(trajectory.index, None)
        if flight is not None:
            self._left[trajectory.index] = flight
            self._dispatcher.leave(flight)

    async def close(self) -> None:
        """Abort the running ones, all at once: a second cancellation finds nothing left to do. Then wait for them."""
        self._launcher.cancel()
        for flight in self._flights.values():
            self._dispatcher.leave(flight)
        left = [*self._left.values(), *self._flights.values()]
        self._flights.clear()
        await asyncio.wait([self._launcher, *(flight.task for flight in left if flight.waiters == 0)])
        self.aborted = len(left)
        # Stored trajectories arrive at once; live, the others would have generated tokens in the meantime.
        lag = self.clock if any(trajectory.reused for trajectory in self.seen) else 0
        self.discarded = sum(max(flight.spent, 0 if _finished(flight) else lag) for flight in left)
        self._dispatcher.budget.charged += sum(flight.spent for flight in left if not _finished(flight))


class Replayed:
    """Serves draws from the store alone. `rows`: stored trajectories by name; a draw without a row was never sampled.

    The i-th trajectory to arrive ends when the clock reaches the token count of the longest of the first i; a running
    one then has that many tokens, or all of its own. A failed trajectory fails again. One that is stored as aborted, or
    was never sampled, arrives last, as a failure that says so.
    lacking: number of draws for which this replay may differ from a live call: those that were never sampled, and those
    handed out although the store holds only an aborted prefix.
    """

    def __init__(
        self, dispatcher: Dispatcher, draws: Sequence[Draw], rows: Mapping[str, Stored], *, every: int | None = None
    ) -> None:
        self._dispatcher = dispatcher
        self.seen: list[Trajectory] = []
        self.aborted = 0
        self.discarded = 0
        self.clock = 0
        self._held = rows.keys()
        self.lacking = sum(name.id not in rows for _, name in draws)
        self._running: dict[int, Trajectory] = {}
        self._events: list[tuple[float, int, int, int]] = []  # when, finished (1) or running (0), rank, index
        found = [(rows[name.id].seq, index, rows[name.id]) for index, name in draws if name.id in rows]
        whole = sorted((entry for entry in found if entry[2].error != ABORTED), key=lambda entry: entry[0])
        ends = accumulate((row.completion.generated_tokens for _, _, row in whole), max)
        for rank, ((seq, index, row), end) in enumerate(zip(whole, ends, strict=True)):
            self._running[index] = Trajectory(
                id=row.id,
                index=index,
                completion=row.completion,
                error=row.error,
                reused=row.error is None,
                arrival=seq,
            )
            self._events.append((end, 1, rank, index))
            if every is not None:
                marks = range(every, row.completion.generated_tokens, every)
                self._events += [(mark, 0, rank, index) for mark in marks]
        for index, name in draws:
            if index not in self._running:
                self._running[index] = _not_held(name, index, rows.get(name.id))
                self._events.append((math.inf, 1, index, index))
        heapq.heapify(self._events)

    def __aiter__(self) -> Replayed:
        return self

    async def __anext__(self) -> Trajectory:
        while self._events:
            when, finished, _, index = heapq.heappop(self._events)
            trajectory = self._running.get(index)
            if trajectory is None:
                continue  # aborted
            self.clock = max(self.clock, 0 if when == math.inf else int(when))
            if not finished:
                return replace(trajectory, completion=cut(trajectory.completion, int(when)), running=True)
            del self._running[index]
            self.seen.append(trajectory)
            self._dispatcher.budget.charged += trajectory.completion.generated_tokens
            self._dispatcher.counters.reused += trajectory.error is None
            self.lacking += when == math.inf and trajectory.id in self._held
            return trajectory
        raise StopAsyncIteration

    def abort(self, trajectory: Trajectory) -> None:
        running = self._running.pop(trajectory.index, None)
        if running is not None:
            self._discard(running)

    async def close(self) -> None:
        for trajectory in self._running.values():
            self._discard(trajectory)
        self._running.clear()

    def _discard(self, trajectory: Trajectory) -> None:
        tokens = trajectory.completion.generated_tokens
        spent = tokens if trajectory.error else min(tokens, self.clock)
        self.aborted += 1
        self.discarded += spent
        self._dispatcher.budget.charged += spent


def _finished(flight: Flight) -> bool:
    return flight.task.done() and not flight.task.cancelled() and flight.task.exception() is None


def _not_held(name: SampleName, index: int, row: Stored | None) -> Trajectory:
    """What stands in for a trajectory that the store does not hold, or holds only in part."""
    if row is None:
        completion, reason = Completion(content="", finish_reason="error"), "failed: never sampled for this store"
    else:
        completion, reason = row.completion, "failed: aborted when it was sampled for this store"
    return Trajectory(id=name.id, index=index, completion=completion, error=reason)


def cut(completion: Completion, tokens: int) -> Completion:
    """What a finished completion had after `tokens` tokens; its text is cut in proportion, as only tokens matter."""
    share = tokens / completion.generated_tokens
    return Completion(
        content=completion.content[: round(share * len(completion.content))],
        reasoning=completion.reasoning[: round(share * len(completion.reasoning))],
        finish_reason="running",
        prompt_tokens=completion.prompt_tokens,
        generated_tokens=tokens,
        confidences=None if completion.confidences is None else completion.confidences[:tokens],
    )
