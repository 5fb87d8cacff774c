"""Trajectories as they finish: running ones, aborts, and what a store remembers of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pacore_lab.errors import BudgetSpent, NeverSampled, Unsupported
from pacore_lab.interfaces import Capabilities, Chunk, OnChunk, Request
from pacore_lab.sampling.arrivals import cut
from pacore_lab.sampling.budget import Budget
from pacore_lab.sampling.dispatch import Dispatcher
from pacore_lab.sampling.sampler import EpisodeSampler
from pacore_lab.types import Completion, Trajectory
from tests import doubles

LENGTHS = [30, 10, 20, 40]


class Steps:
    """Writes a token per step to each running request, all in step; ends each at its length."""

    fingerprint = "steps"
    capabilities = Capabilities(seeds="request", partial=True)

    def __init__(self, lengths: list[int] = LENGTHS) -> None:
        self.lengths, self.begun = lengths, 0
        self.cancelled: list[int] = []
        self._step: asyncio.Future[None] | None = None

    async def _stepped(self) -> None:
        if self._step is None or self._step.done():
            loop = asyncio.get_running_loop()
            self._step = loop.create_future()
            loop.call_later(0.001, self._step.set_result, None)
        await asyncio.shield(self._step)

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def complete(self, request: Request, on_chunk: OnChunk | None = None) -> Completion:
        number, self.begun = self.begun, self.begun + 1
        length = self.lengths[number % len(self.lengths)]
        try:
            for step in range(length):
                await self._stepped()
                if on_chunk:
                    on_chunk(Chunk(text="x", tokens=1, confidences=(step / 10,)))
        except asyncio.CancelledError:
            self.cancelled.append(number)
            raise
        confidences = tuple(step / 10 for step in range(length)) if on_chunk else None
        return Completion(content="x" * length, generated_tokens=length, confidences=confidences)


class Nothing(doubles.Scripted):
    """What a filled store is to a policy: nothing beyond it can be sampled."""

    fingerprint = "steps"
    capabilities = Capabilities(seeds="request", partial=True, replay=True)

    async def complete(self, request: Request, on_chunk: OnChunk | None = None) -> Completion:
        raise NeverSampled("never sampled for this store")


async def first(dispatch: Dispatcher, k: int, m: int, *, problem: str = "p") -> tuple[list[Trajectory], object]:
    sampler = doubles.episode(dispatch, problem=problem)
    found = []
    async with sampler.stream(doubles.user("q"), k) as arrivals:
        async for trajectory in arrivals:
            found.append(trajectory)
            if len(found) == m:
                break
    return found, sampler.account


async def test_running_trajectories_come_every_so_many_tokens_and_stop_when_told(tmp_path: Path) -> None:
    backend = Steps()
    async with doubles.dispatcher(backend, tmp_path) as dispatch:  # type: ignore[arg-type]
        sampler, seen = doubles.episode(dispatch), []
        async with sampler.stream(doubles.user("q"), 4, every=8) as arrivals:
            async for each in arrivals:
                seen.append(each)
                if each.running and each.index == 3 and each.completion.generated_tokens >= 16:
                    arrivals.abort(each)
        finished = [each for each in seen if not each.running]
        assert [each.index for each in finished] == [1, 2, 0]
        for index, marks in ((0, 3), (1, 1), (2, 2)):
            running = [each.completion for each in seen if each.running and each.index == index]
            assert len(running) == marks
            assert all(c.generated_tokens == len(c.content) == len(c.confidences or ()) for c in running)
        assert backend.cancelled == [3]
        assert (sampler.account.aborted, sampler.account.generated) == (1, 60)
        assert 16 <= sampler.account.discarded < 40
        assert dispatch.counters.running == 0
        assert dispatch.slots.waiting == 0


async def test_an_aborted_trajectory_does_not_arrive_any_more(tmp_path: Path) -> None:
    async with doubles.dispatcher(Steps([20, 20]), tmp_path) as dispatch:  # type: ignore[arg-type]
        sampler, after = doubles.episode(dispatch), []
        async with sampler.stream(doubles.user("q"), 2, every=4) as arrivals:
            stopped = None
            async for each in arrivals:
                if stopped is not None:
                    after.append(each)
                elif each.index == 0:
                    stopped = each
                    arrivals.abort(each)
                    arrivals.abort(each)  # twice is once
        assert {each.index for each in after} == {1}
        assert sampler.account.aborted == 1


@pytest.mark.parametrize("m", [1, 2, 3, 4])
async def test_a_policy_on_a_bank_sees_what_it_saw_live(m: int, tmp_path: Path) -> None:
    """Live under a quorum, then on a store in which everything was finished: same arrivals, same answers."""
    async with doubles.dispatcher(Steps(), tmp_path / "live") as dispatch:  # type: ignore[arg-type]
        live, spent = await first(dispatch, 4, m)
    async with doubles.dispatcher(Steps(), tmp_path / "filled") as dispatch:  # type: ignore[arg-type]
        await doubles.episode(dispatch).sample(doubles.user("q"), 4)
    async with doubles.dispatcher(Nothing(), tmp_path / "filled") as dispatch:
        replayed, charged = await first(dispatch, 4, m)
    assert [(each.id, each.index, each.content) for each in replayed] == [(e.id, e.index, e.content) for e in live]
    assert charged.generated == spent.generated == sum(sorted(LENGTHS)[:m])  # type: ignore[attr-defined]
    clock = sorted(LENGTHS)[m - 1]
    assert charged.discarded == sum(min(length, clock) for length in sorted(LENGTHS)[m:])  # type: ignore[attr-defined]
    assert charged.discarded <= spent.discarded <= sum(sorted(LENGTHS)[m:])  # type: ignore[attr-defined]  # a bit late
    assert charged.aborted == spent.aborted == 4 - m  # type: ignore[attr-defined]


async def test_the_same_policy_on_its_own_store_costs_what_it_did(tmp_path: Path) -> None:
    async with doubles.dispatcher(Steps(), tmp_path) as dispatch:  # type: ignore[arg-type]
        live, spent = await first(dispatch, 4, 2)
    async with doubles.dispatcher(Nothing(), tmp_path) as dispatch:
        replayed, charged = await first(dispatch, 4, 2)
        whole, _ = await first(dispatch, 4, 4)
        wider, account = await first(dispatch, 6, 6)
    assert [each.id for each in replayed] == [each.id for each in live]
    assert (charged.generated, charged.aborted) == (spent.generated, 2)  # type: ignore[attr-defined]
    assert 40 <= charged.discarded <= spent.discarded  # type: ignore[attr-defined]  # an abort comes late on a busy machine
    assert [each.content for each in whole[:2]] == [each.content for each in live]
    lost = {each.error for each in whole[2:]} - {None}
    assert lost == {"failed: aborted when it was sampled for this store"}
    assert {each.error for each in wider[4:]} == {"failed: never sampled for this store"}
    assert account.failed == sum(each.error is not None for each in wider) >= 3  # type: ignore[attr-defined]


async def test_a_bank_says_what_it_does_not_hold_and_stays_as_it_is(tmp_path: Path) -> None:
    """A failure that was written into the store would hide what a later run samples there."""
    async with doubles.dispatcher(Steps(), tmp_path) as dispatch:  # type: ignore[arg-type]
        await doubles.episode(dispatch).sample(doubles.user("q"), 2)
    async with doubles.dispatcher(Nothing(), tmp_path) as dispatch:
        sampler = doubles.episode(dispatch)
        found = await sampler.sample(doubles.user("q"), 3)
        other = await sampler.sample(doubles.user("another prompt"), 1)
        assert [each.error for each in (*found, *other)] == [None, None, *["failed: never sampled for this store"] * 2]
        rows = await dispatch.store.get([each.id for each in (*found, *other)])
        assert set(rows) == {each.id for each in found[:2]}


async def test_running_trajectories_of_a_bank_grow_in_step(tmp_path: Path) -> None:
    async with doubles.dispatcher(Steps(), tmp_path) as dispatch:  # type: ignore[arg-type]
        assert len((await first(dispatch, 4, 5))[0]) == 4
    async with doubles.dispatcher(Nothing(), tmp_path) as dispatch:
        sampler, seen = doubles.episode(dispatch), []
        async with sampler.stream(doubles.user("q"), 4, every=15) as arrivals:
            async for each in arrivals:
                done = each.completion
                seen.append((done.generated_tokens, each.index, each.running))
                if each.running:
                    assert (len(done.content), len(done.confidences or ())) == (done.generated_tokens,) * 2
                    if each.index == 3:
                        arrivals.abort(each)
    assert seen == [(10, 1, False), (15, 2, True), (15, 0, True), (15, 3, True), (20, 2, False), (30, 0, False)]
    assert (sampler.account.discarded, sampler.account.ttc) == (15, 75)


async def test_a_store_that_holds_some_makes_aborts_no_cheaper(tmp_path: Path) -> None:
    """The stored ones came at once, and those aborted after them were charged the nothing they had had time for."""
    async with doubles.dispatcher(Steps(), tmp_path) as dispatch:  # type: ignore[arg-type]
        await doubles.episode(dispatch).sample(doubles.user("q"), 2)
    async with doubles.dispatcher(Steps([40, 50]), tmp_path) as dispatch:  # type: ignore[arg-type]
        found, spent = await first(dispatch, 4, 2)
    assert [len(each.content) for each in found] == [10, 30]
    assert (spent.generated, spent.aborted, spent.discarded) == (40, 2, 60)  # type: ignore[attr-defined]


def test_a_cut_completion_has_its_tokens_and_no_more() -> None:
    whole = Completion(content="abcd", reasoning="wxyz", generated_tokens=8, confidences=(1.0,) * 8)
    part = cut(whole, 4)
    assert (part.content, part.reasoning, part.generated_tokens) == ("ab", "wx", 4)
    assert part.confidences == (1.0,) * 4


async def test_a_spent_budget_launches_nothing_more(tmp_path: Path) -> None:
    backend = Steps([10])
    async with doubles.dispatcher(backend, tmp_path, concurrency=1) as plain:  # type: ignore[arg-type]
        budget = Budget(25)
        dispatch, judge = (
            Dispatcher(backend=backend, store=plain.store, params=plain.params, concurrency=1, budget=budget)  # type: ignore[arg-type]
            for _ in range(2)
        )
        with pytest.raises(BudgetSpent):
            await doubles.episode(dispatch).sample(doubles.user("q"), 9)
        assert backend.begun == 3  # 10 and 20 tokens are within 25
        with pytest.raises(BudgetSpent):
            await doubles.episode(dispatch, problem="other").sample(doubles.user("q"), 1)
        judged = EpisodeSampler(dispatch, seed=0, problem="judged", repeat=0, roles={"judge": judge})
        with pytest.raises(BudgetSpent):  # a role's own dispatcher spends from the same budget
            await judged.sample(doubles.user("q"), 1, role="judge")
        assert backend.begun == 3


async def test_aborted_trajectories_are_finished_when_nothing_else_waits(tmp_path: Path) -> None:
    """A store of the quick ones only would make every later draw from it look quick."""
    backend = Steps()
    async with doubles.dispatcher(backend, tmp_path) as plain:  # type: ignore[arg-type]
        dispatch = Dispatcher(
            backend=backend,  # type: ignore[arg-type]
            store=plain.store,
            params=plain.params,
            concurrency=4,
            finish_aborted=True,
        )
        found, spent = await first(dispatch, 4, 2)
        await dispatch.settle()
        again = await doubles.episode(dispatch).sample(doubles.user("q"), 4)
    assert all(each.reused for each in again)
    assert {each.id for each in found} < {each.id for each in again}
    assert backend.begun == 6
    assert spent.ttc < 30 + 2 * 40  # type: ignore[attr-defined]  # what finishing them took is no episode's


async def test_every_must_be_a_count_and_needs_partial_texts(tmp_path: Path) -> None:
    async with doubles.dispatcher(Steps(), tmp_path) as dispatch:  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="every 0 tokens"):
            async with doubles.episode(dispatch).stream(doubles.user("q"), 1, every=0):
                pass
        dispatch.backend.capabilities = Capabilities()  # type: ignore[misc]
        with pytest.raises(Unsupported, match="would not count"):
            async with doubles.episode(dispatch).stream(doubles.user("q"), 1):
                pass
