"""Strategies and their parts, against examples worked by hand. The wire format itself is in test_fidelity.py."""

import asyncio
import gc
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacore_lab.errors import RequestError
from pacore_lab.grading import NoGrader
from pacore_lab.interfaces import Compaction, Order, Request, Schedule, Strategy
from pacore_lab.types import Completion, Message, Problem, Solution, Trajectory
from strategies.compaction import AnswerOnly, Conclusion, Full, LastTokens, RandomK
from strategies.majority_vote import MajorityVote
from strategies.orders import Arrival, Published, Shuffle
from strategies.pacore import PaCoRe, sequential
from strategies.population import Population
from strategies.prompts import Template, unnumbered
from strategies.schedules import Fixed
from strategies.single import Single
from tests.doubles import Reply, Scripted, dispatcher, episode, trajectory, user

PROBLEM = Problem(id="p", messages=user("2 + 2?"), answer="4")


def pacore(widths: list[int], compaction: Compaction | None = None, order: Order | None = None) -> PaCoRe:
    return PaCoRe(
        schedule=Fixed(widths=widths),
        prompt=Template(),
        order=order or Published(),
        compaction=compaction or Conclusion(),
    )


async def solve(strategy: Strategy, reply: Reply, path: Path) -> tuple[Solution, list[Request]]:
    backend = Scripted(reply)
    async with dispatcher(backend, path, concurrency=1) as dispatch:
        return await strategy.solve(PROBLEM, episode(dispatch)), backend.requests


def text(request: Request) -> str:
    content = request.prompt[-1]["content"]
    assert isinstance(content, str)
    return content


async def test_pacore_runs_its_schedule_and_ends_with_one(tmp_path: Path) -> None:
    solution, requests = await solve(pacore([3, 2]), lambda request, n: f"<think>{n}</think>m{n}", tmp_path)
    assert [len(r.trajectories) for r in solution.rounds] == [3, 2, 1]
    assert [sorted(m.text for m in r.messages) for r in solution.rounds] == [["m0", "m1", "m2"], ["m3", "m4"], ["m5"]]
    assert [a.content for a in solution.answers] == ["<think>5</think>m5"]
    assert [text(r).count("Reference ") for r in requests] == [0, 0, 0, 3 + 1, 3 + 1, 2 + 1]
    for done in solution.rounds:
        assert tuple(source for m in done.messages for source in m.sources) == done.trajectories


async def test_a_round_that_is_compacted_is_not_held_while_the_next_one_runs(tmp_path: Path) -> None:
    """Thousands of episodes wait in round 2; each held megabytes of round 1, which the store has."""
    alive: list[int] = []

    async def reply(request: Request, n: int) -> str:
        await asyncio.sleep(0)
        alive.append(sum(type(thing) is Trajectory for thing in gc.get_objects()))
        return f"m{n}"

    before = sum(type(thing) is Trajectory for thing in gc.get_objects())
    await solve(pacore([16]), reply, tmp_path)
    assert alive[-1] - before <= 1


async def test_empty_and_failed_trajectories_are_left_out_and_shuffled_with_the_rest(tmp_path: Path) -> None:
    def reply(request: Request, n: int) -> str:
        if n == 1:
            raise RequestError("no")
        return ["a", "", "", "dddd", "y"][n]

    solution, _ = await solve(pacore([4]), reply, tmp_path)
    shuffled = ["", "", "a", "dddd"]
    random.Random(42).shuffle(shuffled)
    assert [m.text for m in solution.rounds[0].messages] == [t for t in shuffled if t]


async def test_a_round_without_messages_leaves_the_problem_unmodified(tmp_path: Path) -> None:
    solution, requests = await solve(pacore([2]), lambda request, n: "" if n < 2 else "4", tmp_path)
    assert [r.prompt for r in requests] == [PROBLEM.messages] * 3
    assert len({r.seed for r in requests}) == 3
    assert solution.answers[0].content == "4"


@pytest.mark.parametrize("strategy", [pacore([]), pacore([2]), Single()])
async def test_a_failed_end_is_no_answer(strategy: Strategy, tmp_path: Path) -> None:
    def reply(request: Request, n: int) -> str:
        raise RequestError("the prompt is too long")

    solution, _ = await solve(strategy, reply, tmp_path)
    assert (solution.answers, solution.reason) == ((), "failed: the prompt is too long")


async def test_sequential_hands_one_message_on(tmp_path: Path) -> None:
    strategy = sequential(n=3, prompt=Template(), order=Published(), compaction=Conclusion())
    solution, requests = await solve(strategy, lambda request, n: f"m{n}", tmp_path)
    assert [len(r.trajectories) for r in solution.rounds] == [1, 1, 1]
    assert "Reference 1:\nm1\n" in text(requests[2])
    assert "m0" not in text(requests[2])
    with pytest.raises(ValueError, match=r"strategy\.n is 0"):
        sequential(n=0, prompt=Template(), order=Published(), compaction=Conclusion())


async def test_vote_takes_the_largest_class_and_all_of_a_tie(tmp_path: Path) -> None:
    def said(*answers: str) -> Reply:
        return lambda request, n: answers[n]

    vote = MajorityVote(k=5, grader=NoGrader())
    boxes = [f"\\boxed{{{x}}}" for x in "12233"]
    tie, _ = await solve(vote, said(*boxes), tmp_path / "tie")
    assert [t.index for t in tie.answers] == [1, 3]
    won, _ = await solve(vote, said(*boxes[:4], "no box"), tmp_path / "won")
    assert [t.index for t in won.answers] == [1]
    none, _ = await solve(vote, said(*["no box"] * 5), tmp_path / "none")
    assert (none.answers, none.reason) == ((), "no valid answer among 5 trajectories")
    with pytest.raises(ValueError, match=r"strategy\.k is 0"):
        MajorityVote(k=0, grader=NoGrader())


def test_schedule_adds_the_last_round_and_refuses_nonsense() -> None:
    schedule: Schedule = Fixed(widths=[32, 4])
    rounds, widths = [], []
    while plan := schedule(rounds):  # type: ignore[arg-type]
        widths.append(plan.width)
        rounds.append(None)
    assert widths == [32, 4, 1]
    for wrong in ([0], [-1], [4, 0], ["4"], "44", [2.5]):
        with pytest.raises(ValueError, match=r"strategy\.schedule\.widths"):
            Fixed(widths=wrong)  # type: ignore[arg-type]


TRAJECTORIES = st.lists(st.text(max_size=8), max_size=12).map(
    lambda texts: [trajectory(text, name=f"{i}", index=i, arrival=-i) for i, text in enumerate(texts)]
)


@given(TRAJECTORIES, st.sampled_from([Published(), Arrival(), Shuffle(seed=1)]))
def test_an_order_is_a_permutation_and_repeats(trajectories: list[Trajectory], order: Order) -> None:
    ordered = order(trajectories)
    assert sorted(t.id for t in ordered) == sorted(t.id for t in trajectories)
    assert order(trajectories) == ordered


@given(TRAJECTORIES)
def test_arrival_and_shuffle_do_not_depend_on_what_they_are_given_first(trajectories: list[Trajectory]) -> None:
    for order in (Arrival(), Shuffle(seed=1)):
        assert order(trajectories[::-1]) == order(trajectories)


COMPACTIONS = [Conclusion(), Full(), AnswerOnly(grader=NoGrader()), RandomK(k=3, of=Conclusion())]


@given(TRAJECTORIES, st.sampled_from(COMPACTIONS))
def test_a_compaction_names_its_sources_in_order_and_repeats(ts: list[Trajectory], compaction: Compaction) -> None:
    messages = compaction(ts)
    sources = [source for message in messages for source in message.sources]
    assert sources == [t.id for t in ts if t.id in sources]
    assert compaction(ts) == messages
    assert compaction([trajectory("x", error="failed: no")]) == ()


def test_compactions_by_hand() -> None:
    ts = [trajectory("<think>long</think>so \\boxed{7}", name="a"), trajectory("no box", name="b")]
    assert Conclusion()(ts) == (Message(text="so \\boxed{7}", sources=("a",)), Message(text="no box", sources=("b",)))
    assert [m.text for m in Full()(ts)] == [t.content for t in ts]
    assert AnswerOnly(grader=NoGrader())(ts) == (Message(text="7", sources=("a",)),)
    assert len(RandomK(k=1, of=Conclusion())(ts)) == 1
    split = trajectory("so 7", completion=Completion(content="so 7", reasoning="long"))
    assert [m.text for m in Full()([split])] == ["<think>\nlong\n</think>\n\nso 7"]
    assert [m.text for m in Conclusion()([split])] == ["so 7"]


def test_last_tokens_counts_with_the_models_tokenizer() -> None:
    folder = str(Path(__file__).resolve().parent.parent / "experiments/tiny_models/rlvr-tiny")
    tail = LastTokens(n=3, tokenizer=folder)
    assert [m.text for m in tail([trajectory("12345"), trajectory("67"), trajectory("")])] == ["345", "67"]
    with pytest.raises(ValueError, match=r"compaction\.tokenizer=/nope cannot be loaded"):
        LastTokens(n=3, tokenizer="/nope")
    with pytest.raises(ValueError, match=r"compaction\.tokenizer is not set"):
        LastTokens(n=3, tokenizer=None)


def test_unnumbered_differs_from_published_in_the_numbers_only() -> None:
    messages = [Message(text="m", sources=("a",)), Message(text="n", sources=("b",))]
    published, plain = Template()(PROBLEM, messages), unnumbered()(PROBLEM, messages)
    numbered = str(published[0]["content"])
    assert plain[0]["content"] == numbered.replace("Reference 1:", "Reference:").replace("Reference 2:", "Reference:")
    assert numbered.count("Reference") - 1 == 2


def test_parts_that_are_no_text_survive_behind_the_template() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:"}}
    turn = {"role": "user", "content": [{"type": "text", "text": "a"}, picture, {"type": "text", "text": "b"}]}
    problem = Problem(id="p", messages=(turn,))  # type: ignore[arg-type]
    content = Template()(problem, [Message(text="m", sources=())])[0]["content"]
    assert isinstance(content, list)
    assert content[1:] == [picture]
    assert "Original Problem:\na\nb\n" in content[0]["text"]


async def test_a_vote_over_the_last_round_is_in_message_order(tmp_path: Path) -> None:
    """Of a class's trajectories the first shown is the answer; the first drawn was another text of the same answer."""
    texts = ["a longer one \\boxed{1}", "\\boxed{1}", "short \\boxed{1}"]
    backend = Scripted(lambda request, n: texts[n])
    strategy = PaCoRe(Population(width=3, loops=1), grader=NoGrader())
    async with dispatcher(backend, tmp_path, concurrency=1) as dispatch:
        solution = await strategy.solve(PROBLEM, episode(dispatch))
    first = solution.rounds[-1].trajectories[0]
    assert [answer.id for answer in solution.answers] == [first]
    assert solution.answers[0].content != texts[0]
