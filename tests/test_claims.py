"""Trajectories shared out among the episodes of a run."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacore_lab.sampling.claims import Claims, shares

WEIGHTS = st.lists(st.floats(0, 1), min_size=1, max_size=20)


@given(WEIGHTS, st.integers(0, 500))
def test_shares_are_whole_add_up_and_grow_with_the_weight(weights: list[float], total: int) -> None:
    parts = shares(weights, total)
    assert sum(parts) == total
    assert min(parts) >= 0
    for mine, part in zip(weights, parts, strict=True):
        for other, least in zip(weights, parts, strict=True):
            assert mine >= other or part <= least + 1
    exact = (
        [total * weight / sum(weights) for weight in weights] if sum(weights) else [total / len(weights)] * len(parts)
    )
    assert all(abs(part - due) < 1 + 1e-6 for part, due in zip(parts, exact, strict=True))


def test_shares_by_hand() -> None:
    assert shares([0.5, 0.25, 0.25], 8) == [4, 2, 2]
    assert shares([0.5, 0.0, 0.25], 8) == [5, 0, 3]  # 5.33, 0, 2.67
    assert shares([0.0, 0.0], 3) == [2, 1]


async def test_nobody_is_given_a_share_before_all_have_claimed_or_ended() -> None:
    claims = Claims([("a", 0), ("b", 0), ("c", 0)])
    first = asyncio.create_task(claims.claim(("a", 0), 0.75, 4))
    await asyncio.sleep(0)
    second = asyncio.create_task(claims.claim(("b", 0), 0.25, 4))
    await asyncio.sleep(0)
    assert not first.done()
    claims.end(("c", 0))  # without a claim: it brings nothing in either
    assert (await first, await second) == (6, 2)


async def test_a_resumed_run_shares_as_the_interrupted_one() -> None:
    """The episodes that are done cannot claim again; their recorded claims must count as before."""
    claims = Claims([("a", 0), ("b", 0), ("c", 0)])
    claims.made(("b", 0), 0.25, 4)
    claims.end(("c", 0))
    assert await claims.claim(("a", 0), 0.75, 4) == 6


async def test_a_claim_is_made_once_and_weighs_something_finite() -> None:
    claims = Claims([("a", 0)])
    for weight in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="must be 0 or more"):
            await claims.claim(("a", 0), weight, 1)
    assert await claims.claim(("a", 0), 0.0, 3) == 3
    with pytest.raises(ValueError, match="claims once"):
        await claims.claim(("a", 0), 1.0, 1)


async def test_a_cancelled_claim_does_not_take_the_shares_from_the_others() -> None:
    claims = Claims([("a", 0), ("b", 0)])
    gone = asyncio.create_task(claims.claim(("a", 0), 1.0, 2))
    await asyncio.sleep(0)
    gone.cancel()
    assert await claims.claim(("b", 0), 1.0, 2) == 2
