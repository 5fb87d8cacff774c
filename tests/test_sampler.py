"""Sampling: order, limits, priority, retries, aborts, accounts, pools, and nothing sampled twice."""

import asyncio
from pathlib import Path

import pytest

from pacore_lab.errors import ConfigError, EngineDead, RequestError, TransientError
from pacore_lab.interfaces import Request
from pacore_lab.sampling.dispatch import Retry, Slots
from pacore_lab.types import Completion
from tests.doubles import Reply, Scripted, dispatcher, episode, user
from tests.waiting import until


def last_first(count: int) -> Reply:
    """Replies to `count` requests, the last one first: each waits for the one after it."""
    came = [asyncio.Event() for _ in range(count)]

    async def reply(request: Request, n: int) -> str:
        if n + 1 < count:
            await came[n + 1].wait()
        came[n].set()
        return f"{n}"

    return reply


async def never(request: Request, n: int) -> str:
    await asyncio.Event().wait()
    return ""


async def test_trajectories_come_in_index_order_whatever_finishes_first(tmp_path: Path) -> None:
    async with dispatcher(Scripted(last_first(3)), tmp_path) as dispatch:
        found = await episode(dispatch).sample(user("q"), 3)
    assert [t.content for t in found] == ["0", "1", "2"]
    assert sorted(found, key=lambda t: t.arrival) == found[::-1]


async def test_asking_again_continues_with_fresh_indices(tmp_path: Path) -> None:
    """A strategy that asks one at a time must get the draws of one that asks for all at once."""
    async with dispatcher(Scripted(), tmp_path) as dispatch:
        at_once = await episode(dispatch).sample(user("q"), 3)
        sampler = episode(dispatch)
        singly = [(await sampler.sample(user("q"), 1))[0] for _ in range(3)]
    assert [t.id for t in singly] == [t.id for t in at_once]
    assert [t.index for t in singly] == [0, 1, 2]
    assert all(t.reused for t in singly)


async def test_strategies_share_round_one_and_nothing_else_is_shared(tmp_path: Path) -> None:
    backend = Scripted()
    async with dispatcher(backend, tmp_path) as dispatch:
        first = await episode(dispatch).sample(user("q"), 4)
        second = await episode(dispatch).sample(user("q"), 8)
        await episode(dispatch, repeat=1).sample(user("q"), 4)
        await episode(dispatch, problem="other").sample(user("q"), 4)
    assert [t.id for t in second[:4]] == [t.id for t in first]
    assert [t.reused for t in second] == [True] * 4 + [False] * 4
    assert len(backend.requests) == len({r.seed for r in backend.requests}) == 4 + 4 + 4 + 4


async def test_at_most_concurrency_at_once(tmp_path: Path) -> None:
    async def reply(request: Request, n: int) -> str:
        await until(lambda: backend.peak >= 3)
        return "x"

    backend = Scripted(reply)
    async with dispatcher(backend, tmp_path, concurrency=3) as dispatch:
        await asyncio.gather(*(episode(dispatch, problem=str(i)).sample(user("q"), 5) for i in range(4)))
        assert backend.peak == 3
        assert dispatch.slots.waiting == 0
    with pytest.raises(ConfigError, match="concurrency is 0"):
        Slots(0)


async def test_later_rounds_go_first_then_first_come(tmp_path: Path) -> None:
    async def reply(request: Request, n: int) -> str:
        await asyncio.sleep(0)
        return "x"

    backend = Scripted(reply)
    async with dispatcher(backend, tmp_path, concurrency=1) as dispatch:

        async def two_rounds(name: str) -> None:
            sampler = episode(dispatch, problem=name)
            await sampler.sample(user(f"{name}1"), 2)
            await sampler.sample(user(f"{name}2"), 1)

        await asyncio.gather(*(two_rounds(name) for name in "abc"))
    seen = [request.prompt[0]["content"] for request in backend.requests]
    assert seen[:2] == ["a1", "a1"]  # first come: an episode's round is not spread over the others'
    assert seen.index("a2") < seen.index("c1")  # round 2 overtakes round 1 of those who came later


async def test_transient_faults_are_tried_again_and_others_are_data(tmp_path: Path) -> None:
    def reply(request: Request, n: int) -> str:
        if n in (0, 1):
            raise TransientError("503", retry_after=0.001)
        if n == 3:
            raise RequestError("the prompt has 5000 tokens, the context 4096")
        return "fine"

    async with dispatcher(Scripted(reply), tmp_path, concurrency=1) as dispatch:
        sampler = episode(dispatch)
        good, bad = await sampler.sample(user("q"), 2)
        assert (good.content, good.error) == ("fine", None)
        assert (bad.content, bad.error) == ("", "failed: the prompt has 5000 tokens, the context 4096")
        assert dispatch.counters.retries == 2
        assert (sampler.account.sampled, sampler.account.failed) == (1, 1)
        again = await episode(dispatch).sample(user("q"), 2)  # a failure is no sample: it is tried again
        assert [t.reused for t in again] == [True, False]


async def test_a_budget_of_tries_then_a_recorded_failure_then_a_dead_engine(tmp_path: Path) -> None:
    def reply(request: Request, n: int) -> str:
        raise TransientError("connection refused")

    backend = Scripted(reply)
    async with dispatcher(backend, tmp_path, concurrency=1) as dispatch:
        (failed,) = await episode(dispatch).sample(user("q"), 1)
        assert failed.error == "failed: connection refused (after 3 tries)"
        assert len(backend.requests) == 3
        with pytest.raises(EngineDead, match="8 requests in a row failed.*connection refused"):
            await episode(dispatch, problem="q").sample(user("q"), 9)
        assert dispatch.counters.running == 0


def test_retry_waits_longer_each_time_and_as_the_server_asks() -> None:
    retry = Retry(attempts=9, base=1, cap=8)
    waits = [retry.delay(attempt, None) for attempt in (1, 2, 3, 4, 5)]
    assert all(0.75 * ideal <= wait <= 1.25 * ideal for wait, ideal in zip(waits, (1, 2, 4, 8, 8), strict=True))
    assert retry.delay(1, 30.0) == 30.0
    with pytest.raises(ValueError, match="attempts must be 1 or more"):
        Retry(attempts=0)


async def test_leaving_a_stream_aborts_the_rest_and_books_their_tokens(tmp_path: Path) -> None:
    async def reply(request: Request, n: int) -> str:
        return "abcde" if n < 2 else await never(request, n)

    backend = Scripted(reply)
    async with dispatcher(backend, tmp_path) as dispatch:
        sampler = episode(dispatch)
        async with sampler.stream(user("q"), 5) as arrivals:
            seen = [await anext(arrivals) for _ in range(2)]
        assert [t.index for t in seen] == [0, 1]
        assert len(backend.cancelled) == 3
        assert backend.running == dispatch.counters.running == 0
        account = sampler.account
        assert (account.generated, account.discarded, account.ttc) == (10, 9, 19)
        assert account.critical_path == 5
        backend.reply = lambda request, n: "whole"
        later = await episode(dispatch).sample(user("q"), 5)  # an aborted trajectory is not a finished one
        assert [t.content for t in later] == ["abcde", "abcde", "whole", "whole", "whole"]


async def test_a_finished_but_unread_trajectory_is_discarded_and_kept(tmp_path: Path) -> None:
    async with dispatcher(Scripted(lambda request, n: "12345"), tmp_path) as dispatch:
        sampler = episode(dispatch)
        async with sampler.stream(user("q"), 3) as arrivals:
            await anext(arrivals)
            await until(lambda: dispatch.counters.sampled == 3)
        assert (sampler.account.generated, sampler.account.discarded) == (5, 10)
        assert all(t.reused for t in await episode(dispatch).sample(user("q"), 3))


async def test_a_stream_over_stored_trajectories_keeps_their_order_of_arrival(tmp_path: Path) -> None:
    async with dispatcher(Scripted(last_first(3)), tmp_path) as dispatch:
        live = [t.index async for t in _all(episode(dispatch), 3)]
        replayed = [t.index async for t in _all(episode(dispatch), 3)]
    assert replayed == live == [2, 1, 0]


async def _all(sampler, n):  # type: ignore[no-untyped-def]
    async with sampler.stream(user("q"), n) as arrivals:
        async for trajectory in arrivals:
            yield trajectory


async def test_cancelling_an_episode_reaches_the_engine_and_frees_every_slot(tmp_path: Path) -> None:
    backend = Scripted(never)
    async with dispatcher(backend, tmp_path, concurrency=4) as dispatch:
        for turns in range(50):  # every other one while it begins, the rest with all slots taken
            task = asyncio.create_task(episode(dispatch).sample(user("q"), 10))
            if turns % 2:
                await until(lambda: backend.running == 4)
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert backend.running == 0
        assert dispatch.slots.waiting == 0
        backend.reply = lambda request, n: "now"
        assert len(await asyncio.wait_for(episode(dispatch).sample(user("q"), 10), 5)) == 10


async def test_account_charges_reused_trajectories_as_if_generated(tmp_path: Path) -> None:
    def reply(request: Request, n: int) -> Completion:
        return Completion(content="x", prompt_tokens=10, generated_tokens=100 * (n + 1), cached_tokens=4)

    async with dispatcher(Scripted(reply), tmp_path, concurrency=1) as dispatch:
        for reused in (0, 3):
            sampler = episode(dispatch)
            await sampler.sample(user("round 1"), 2)
            await sampler.sample(user("round 2"), 1)
            account = sampler.account
            assert (account.prompt, account.generated, account.cached) == (30, 600, 12)
            assert account.critical_path == 200 + 300
            assert (account.sampled, account.reused) == (3 - reused, reused)


async def test_pool_draws_are_seeded_without_replacement_and_sampled_once(tmp_path: Path) -> None:
    async def reply(request: Request, n: int) -> str:
        await until(lambda: len(backend.requests) >= 6)
        return "x"

    backend = Scripted(reply)
    async with dispatcher(backend, tmp_path, concurrency=80) as dispatch:
        draws = await asyncio.gather(*(episode(dispatch, repeat=r, pool=6).sample(user("q"), 4) for r in range(20)))
        again = await episode(dispatch, repeat=3, pool=6).sample(user("q"), 4)
        assert [t.id for t in again] == [t.id for t in draws[3]]
        assert all(len({t.id for t in draw}) == 4 for draw in draws)
        assert len(backend.requests) == len({t.id for draw in draws for t in draw}) == 6
        assert len({tuple(t.id for t in draw) for draw in draws}) > 10
        sampler = episode(dispatch, repeat=0, pool=6)
        await sampler.sample(user("q"), 4)
        later = await sampler.sample(user("round 2"), 8)  # the pool is for first rounds only
        assert len({t.id for t in later}) == 8
        with pytest.raises(ConfigError, match="pool=3 is smaller"):
            await episode(dispatch, pool=3).sample(user("q"), 4)


async def test_one_of_two_who_wait_for_the_same_draw_may_leave(tmp_path: Path) -> None:
    said = asyncio.Event()

    async def reply(request: Request, n: int) -> str:
        await said.wait()
        return "shared"

    backend = Scripted(reply)
    async with dispatcher(backend, tmp_path) as dispatch:
        leaving = asyncio.create_task(episode(dispatch).sample(user("q"), 1))
        staying = asyncio.create_task(episode(dispatch).sample(user("q"), 1))
        await until(lambda: [flight.waiters for flight in dispatch._flights.values()] == [2])
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        said.set()
        (trajectory,) = await staying
        assert trajectory.content == "shared"
        assert len(backend.requests) == 1
        assert not backend.cancelled
