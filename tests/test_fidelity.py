"""What PaCoRe sends, to the byte, against a reference built here from plain strings (arXiv 2601.05593, Table 6)."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacore_lab.types import Problem, Solution, Trajectory
from strategies.compaction import Conclusion
from strategies.orders import Published
from strategies.pacore import PaCoRe, sequential
from strategies.prompts import published
from strategies.schedules import Fixed
from tests.doubles import trajectory
from tests.outside import invoke, results_of, serving, spawn, write_jsonl
from tests.servers import Payload, RecordingServer

SCHEDULES = ([4], [16], [32, 4], [1, 1, 1], [])
NASTY = [
    "{{ x }}", "{% if a %}{% endif %}", "{# note #}", "{% raw %}", "{{", "}}", "<b>&amp;\"'</b>", "</think>",
    "<think>", "", " ", "\n", "\r\n", "\r", "\t", "参考 2", "é", "e\u0301", "🧮", "\u2028", "\u202e", "\ufeff", "\x00",
    "Reference 1:", "{{ original_prompt }}", "{{ loop.index }}", "\\boxed{7}", "$x$", "%s {0}", "a", "b",
]  # fmt: skip


# ---- the reference: no Jinja, nothing of the lab's ----


def expected_text(question: str, references: Sequence[str]) -> str:
    text = (
        "You are given a problem and a list of reference responses. Your job is to analyze these references and "
        "provide your own response.\n\nOriginal Problem:\n" + question + "\n\nReference Responses:\n"
    )
    for number, reference in enumerate(references, start=1):
        text += "\nReference " + str(number) + ":\n" + reference + "\n"
    return text + (
        "\n\nNow, based on the original problem and reference responses above, please provide your own "
        "comprehensive solution."
    )


def expected_prompt(conversation: Sequence[dict[str, Any]], shown: Sequence[str]) -> list[dict[str, Any]]:
    """The next round's conversation after responses `shown`, in their order, to the round before."""
    references = [response.split("</think>")[-1] for response in shown if response != ""]
    turns = [dict(turn) for turn in conversation]
    if not references:
        return turns
    for turn in reversed(turns):
        if turn["role"] == "user":
            content = turn["content"]
            if isinstance(content, list):
                content = "\n".join(part["text"] for part in content)
            turn["content"] = expected_text(content, references)
            break
    return turns


def expected_order(responses: Sequence[str]) -> list[int]:
    """Indices by length, equal lengths by index, then shuffled by Random(42)."""
    indices = sorted(range(len(responses)), key=lambda index: (len(responses[index]), index))
    random.Random(42).shuffle(indices)
    return indices


def test_reference_against_a_golden_text() -> None:
    """Written out by hand once, so that the reference here and the lab cannot drift together."""
    assert expected_text("1+1?", ["two", "2"]).split("\n") == [
        "You are given a problem and a list of reference responses. Your job is to analyze these references and "
        "provide your own response.",
        "", "Original Problem:", "1+1?", "", "Reference Responses:",
        "", "Reference 1:", "two",
        "", "Reference 2:", "2",
        "", "",
        "Now, based on the original problem and reference responses above, please provide your own comprehensive "
        "solution.",
    ]  # fmt: skip


# ---- in process: many cases ----


class Table:
    """A Sampler whose responses are given round by round; it remembers the prompts."""

    def __init__(self, responses: Sequence[Sequence[str]]) -> None:
        self.left = list(responses)
        self.prompts: list[list[dict[str, Any]]] = []

    async def sample(self, prompt: Any, n: int) -> list[Trajectory]:
        self.prompts.append(json.loads(json.dumps(prompt)))
        contents, number = self.left.pop(0), len(self.prompts)
        assert len(contents) == n
        return [trajectory(content, f"{number}.{i}", index=i) for i, content in enumerate(contents)]

    @asynccontextmanager
    async def stream(self, prompt: Any, n: int) -> AsyncIterator[AsyncIterator[Trajectory]]:
        raise AssertionError("published PaCoRe waits for whole rounds")
        yield


texts = st.lists(st.sampled_from(NASTY) | st.text(max_size=5), max_size=5).map("".join)
contents = texts | st.lists(texts.map(lambda text: {"type": "text", "text": text}), min_size=1, max_size=3)
turns = st.sampled_from(["system", "user", "assistant"]).flatmap(
    lambda role: contents.map(lambda content: {"role": role, "content": content})
)
conversations = st.lists(turns, min_size=1, max_size=5).filter(lambda c: any(turn["role"] == "user" for turn in c))


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[int], list[list[str]]]:
    schedule = draw(st.sampled_from(SCHEDULES))
    pool = draw(st.lists(texts, min_size=1, max_size=6))  # few different ones: many equal lengths
    rounds = [[draw(st.sampled_from(pool)) for _ in range(width)] for width in (*schedule, 1)]
    return draw(conversations), list(schedule), rounds


def check(conversation: list[dict[str, Any]], rounds: list[list[str]], table: Table, solution: Solution) -> None:
    expected, shown = [conversation], []
    for number, responses in enumerate(rounds, start=1):
        order = expected_order(responses)
        shown.append([f"{number}.{index}" for index in order])
        expected.append(expected_prompt(conversation, [responses[index] for index in order]))
    assert json.dumps(table.prompts) == json.dumps(expected[:-1])
    assert [list(done.trajectories) for done in solution.rounds] == shown
    for done, ids, responses in zip(solution.rounds, shown, rounds, strict=True):
        kept = [(name, responses[int(name.split(".")[1])]) for name in ids]
        made = [(message.sources, message.text) for message in done.messages]
        assert made == [((name,), text.split("</think>")[-1]) for name, text in kept if text]
    final = rounds[-1][0]
    assert [answer.content for answer in solution.answers] == ([final] if final else [])


@settings(max_examples=150, deadline=None)
@given(cases())
async def test_every_prompt_of_every_round(case: tuple[list[dict[str, Any]], list[int], list[list[str]]]) -> None:
    """Autoescape, a template in a response, a stripped newline, a stable sort lost: all would show here."""
    conversation, schedule, rounds = case
    parts: Any = {"prompt": published(), "order": Published(), "compaction": Conclusion()}
    problem = Problem(id="p", messages=tuple(json.loads(json.dumps(conversation))))
    table = Table(rounds)
    check(conversation, rounds, table, await PaCoRe(schedule=Fixed(widths=schedule), **parts).solve(problem, table))
    assert json.dumps(problem.messages) == json.dumps(conversation), "the problem itself was changed"
    if schedule == [1, 1, 1]:
        table = Table(rounds)
        check(conversation, rounds, table, await sequential(n=4, **parts).solve(problem, table))


async def test_images_stay_behind_the_text() -> None:
    """Of list-shaped content the text parts are the problem; an image must not vanish in round 2."""
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    content = [{"type": "text", "text": "A {{ x }}"}, image, {"type": "text", "text": "B"}]
    table = Table([["seen"], ["done"]])
    strategy = PaCoRe(schedule=Fixed(widths=[1]), prompt=published(), order=Published(), compaction=Conclusion())
    await strategy.solve(Problem(id="p", messages=({"role": "user", "content": content},)), table)
    asked = {"type": "text", "text": expected_text("A {{ x }}\nB", ["seen"])}
    assert table.prompts[1] == [{"role": "user", "content": [asked, image]}]


# ---- from outside: python run.py against a server that remembers ----

CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "plain": [{"role": "user", "content": "What is 3 + 4?"}],
    "twin of plain": [{"role": "user", "content": "What is 3 + 4?"}],
    "system, history": [
        {"role": "system", "content": "Be {{ terse }}."},
        {"role": "user", "content": "Earlier"},
        {"role": "assistant", "content": "Said </think> before"},
        {"role": "user", "content": "Now <b>this</b> & that?\r\n{% if x %}"},
    ],
    "trailing assistant": [
        {"role": "user", "content": "{# gone? #} 参考 🧮 e\u0301\u2028\n"},
        {"role": "assistant", "content": "Let me"},
    ],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "One"}, {"type": "text", "text": " {{ two }} "}]}],
    "a name": [{"name": "ann", "role": "user", "content": "Reference 1:\n{{ original_prompt }}"}],
}
REPLIES = [
    "", "<think>a</think>b", "<think>b</think>a", "no tag", "</think>", "<think>x</think>y</think>z {{ x }}",
    "<think>{% for %}</think>\n<b>&amp;</b>\r\n", "{# c #} 参考 Ref 2 🧮", "\n\n</think>\n\n\\boxed{7}\n", "abcdef",
]  # fmt: skip


def reply(payload: Payload, n: int) -> str:
    """A function of prompt and seed only; several are equally long."""
    return REPLIES[hashlib.sha256(_key(payload).encode()).digest()[0] % len(REPLIES)]


def delay(payload: Payload, n: int) -> float:
    return hashlib.sha256(_key(payload).encode()).digest()[1] / 255 * 0.05


def _key(payload: Payload) -> str:
    return json.dumps([payload["messages"], payload["seed"]])


def _arguments(server: RecordingServer, folder: Path, out: str, *args: str) -> list[str]:
    records = [{"id": name, "messages": turns} for name, turns in CONVERSATIONS.items()]
    problems = write_jsonl(folder / "problems.jsonl", records)
    backend = ["backend=openai", f"backend.base_url={server.base_url}", "backend.probe=false", "model.name=some/model"]
    files = [f"problems.path={problems}", f"out={folder / out}", f"store={folder / 'store.sqlite'}"]
    return [*backend, "problems=jsonl", *files, *args]


def _run(server: RecordingServer, folder: Path, out: str, *args: str) -> dict[tuple[str, int], dict[str, Any]]:
    said = invoke(*_arguments(server, folder, out, *args))
    assert said.code == 0, said.err
    return results_of(folder / out)


def _check_run(server: RecordingServer, rows: dict[tuple[str, int], dict[str, Any]], widths: list[int]) -> None:
    asked: Counter[str] = Counter()
    answered: Counter[str] = Counter()
    for (name, _), row in rows.items():
        conversation = CONVERSATIONS[name]
        prompt = conversation
        assert [len(responses) for responses in row["round_responses"]] == [*widths, 1]
        for responses, facts, messages in zip(
            row["round_responses"], row["trajectories"], row["messages"], strict=True
        ):
            asked[json.dumps(prompt)] += len(responses)
            whole = [(response["content"], response["reasoning_content"]) for response in responses]
            answered.update(json.dumps([prompt, *pair]) for pair in whole)
            by_index = dict(zip([fact["index"] for fact in facts], responses, strict=True))
            contents = [by_index[index]["content"] for index in sorted(by_index)]
            order = [sorted(by_index)[place] for place in expected_order(contents)]
            assert [fact["index"] for fact in facts] == order
            shown = [by_index[index]["content"] for index in order]
            kept = [(text, fact["id"]) for text, fact in zip(shown, facts, strict=True) if text]
            assert messages == [{"text": text.split("</think>")[-1], "sources": [name]} for text, name in kept]
            prompt = expected_prompt(conversation, shown)
        assert row["final_response"] == responses[0]["content"]
        assert row["final_reasoning_content"] == (responses[0]["reasoning_content"] if responses[0]["content"] else "")
        assert row["problem"] == conversation
    assert Counter(json.dumps(payload["messages"]) for payload in server.requests) == asked
    said = Counter(json.dumps([p["messages"], *_said(server, p)]) for p in server.requests)
    assert said == answered
    assert len({payload["seed"] for payload in server.requests}) == len(server.requests)
    for payload in server.requests:
        rest = {key: value for key, value in payload.items() if key not in ("messages", "seed")}
        assert rest == {"model": "some/model", "temperature": 1.0, "top_p": 1.0}
        assert type(payload["seed"]) is int
        assert 0 <= payload["seed"] < 2**63


def _said(server: RecordingServer, payload: Payload) -> tuple[str, str]:
    message = server.body(reply(payload, 0), payload)["choices"][0]["message"]
    return message["content"], message.get("reasoning_content", "")


def test_high_from_outside(tmp_path: Path) -> None:
    """[32, 4] by `python run.py`: whole payloads, whole results, and a token account that is the server's own."""
    with serving(reply, delay=delay) as server:
        process = spawn(*_arguments(server, tmp_path, "high", "strategy.schedule.widths=[32,4]"), cwd=tmp_path)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        rows = results_of(tmp_path / "high")
        _check_run(server, rows, [32, 4])
        used = [server.body(reply(p, 0), p)["usage"] for p in server.requests]
    assert sum(row["tokens"]["generated"] for row in rows.values()) == sum(u["completion_tokens"] for u in used)
    assert sum(row["tokens"]["prompt"] for row in rows.values()) == sum(u["prompt_tokens"] for u in used)
    for row in rows.values():
        longest = [max(fact["tokens"] for fact in facts) for facts in row["trajectories"]]
        assert row["tokens"]["critical_path"] == sum(longest)


@pytest.mark.parametrize("schedule", [[4], []])
def test_other_schedules_from_outside(schedule: list[int], tmp_path: Path) -> None:
    with serving(reply, delay=delay) as server:
        rows = _run(server, tmp_path, "out", "strategy=pacore", f"strategy.schedule.widths={schedule}")
        _check_run(server, rows, schedule)


def test_sequential_is_the_schedule_of_ones(tmp_path: Path) -> None:
    """`strategy=sequential strategy.n=4`, then widths [1,1,1] on the same store: nothing is left to ask."""
    with serving(reply, delay=delay, split="reasoning_content") as server:
        rows = _run(server, tmp_path, "sequential", "strategy=sequential", "strategy.n=4")
        _check_run(server, rows, [1, 1, 1])
        count = len(server.requests)
        again = _run(server, tmp_path, "ones", "strategy=pacore", "strategy.schedule.widths=[1,1,1]")
        assert len(server.requests) == count == 4 * len(CONVERSATIONS)
    for key in ("round_responses", "messages", "final_response", "final_reasoning_content"):
        assert {name: row[key] for name, row in again.items()} == {name: row[key] for name, row in rows.items()}
