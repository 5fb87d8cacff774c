"""Which messages each trajectory of the next round is shown, and the population that rests on it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacore_lab.grading import NoGrader
from pacore_lab.types import Message, Problem, Round
from strategies.compaction import Full
from strategies.orders import Published
from strategies.pacore import PaCoRe
from strategies.population import Population
from strategies.prompts import published
from strategies.views import All, RandomSubset
from tests.doubles import Scripted, dispatcher, episode, user


def messages(count: int, prefix: str = "t") -> tuple[Message, ...]:
    return tuple(Message(text=f"m{i}", sources=(f"{prefix}{i}",)) for i in range(count))


@given(st.integers(0, 12), st.integers(1, 6), st.integers(1, 20), st.integers(0, 3))
def test_each_place_sees_k_messages_in_their_order(count: int, k: int, width: int, seed: int) -> None:
    shown = RandomSubset(k=k, seed=seed)(messages(count), width)
    assert len(shown) == width
    for view in shown:
        assert len(view) == min(k, count)
        places = [messages(count).index(message) for message in view]
        assert places == sorted(set(places))
    assert RandomSubset(k=k, seed=seed)(messages(count), width) == shown


def test_places_rounds_and_seeds_draw_for_themselves() -> None:
    """One draw for all places would be random_k, which hands every trajectory the same references."""
    shown = RandomSubset(k=4)(messages(16), 16)
    assert len(set(shown)) > 8
    assert RandomSubset(k=4, seed=1)(messages(16), 16) != shown
    later = RandomSubset(k=4)(messages(16, "later"), 16)
    assert [[m.text for m in view] for view in later] != [[m.text for m in view] for view in shown]


def test_a_wider_round_begins_like_a_narrower_one() -> None:
    """Trajectories are shared between runs by their prompts: those of width 4 are the first ones of width 8."""
    assert RandomSubset(k=2)(messages(9), 8)[:4] == RandomSubset(k=2)(messages(9), 4)


def test_every_message_is_shown_about_as_often() -> None:
    shown = RandomSubset(k=4)(messages(16), 1600)
    counts = [sum(message in view for view in shown) for message in messages(16)]
    assert all(300 < count < 500 for count in counts)  # 400 expected, standard deviation 17


def test_all_shows_all() -> None:
    assert All()(messages(3), 2) == [messages(3)] * 2
    with pytest.raises(ValueError, match=r"strategy\.views\.k is 0"):
        RandomSubset(k=0)


def test_a_population_keeps_its_size_and_has_no_last_round_of_one() -> None:
    schedule, rounds = Population(width=5, loops=3), []
    while plan := schedule(rounds):
        rounds.append(Round(trajectories=("t",) * plan.width, messages=()))
    assert [len(done.trajectories) for done in rounds] == [5, 5, 5]
    for key in ("width", "loops"):
        with pytest.raises(ValueError, match=rf"strategy\.schedule\.{key} is 0"):
            Population(**{"width": 1, "loops": 1, key: 0})


async def test_recursive_self_aggregation_by_hand(tmp_path: Path) -> None:
    """N = 6, K = 2, T = 3: each new trajectory sees two whole ones of the population before, and the last one votes."""
    rsa = PaCoRe(
        schedule=Population(width=6, loops=3),
        prompt=published(),
        order=Published(),
        compaction=Full(),
        views=RandomSubset(k=2),
        grader=NoGrader(),
    )
    backend = Scripted(lambda request, n: f"<think>of {n // 6}</think>t{n} \\boxed{{{n % 2 if n < 16 else 1}}}")
    async with dispatcher(backend, tmp_path, concurrency=1) as dispatch:
        solution = await rsa.solve(Problem(id="p", messages=user("2 + 2?")), episode(dispatch))
    texts = [str(request.prompt[-1]["content"]) for request in backend.requests]
    assert [text.count("<think>") for text in texts] == [0] * 6 + [2] * 12
    for place, text in enumerate(texts[6:], start=6):
        assert re.findall(r"<think>of (\d)</think>", text) == [str(place // 6 - 1)] * 2
    assert [len(done.trajectories) for done in solution.rounds] == [6, 6, 6]
    [elected] = solution.answers  # 12 and 14 say 0, the four others 1
    assert elected.content.endswith("\\boxed{1}")
    assert elected.id in solution.rounds[-1].trajectories
