"""Syntheses of a finished run as the model saw them: the prompt, its messages with their grades, and the response."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pacore_lab.analysis.agreement import shown_in
from pacore_lab.config.stored import prompt_builder
from pacore_lab.interfaces import PromptBuilder
from pacore_lab.results.disk import read_lines
from pacore_lab.results.folder import read_run
from pacore_lab.results.line import trajectories_of
from pacore_lab.sampling.names import SampleName, canonical, digest
from pacore_lab.types import Message, Model, Problem, Prompt, Trajectory


@dataclass(frozen=True, kw_only=True, slots=True)
class Rebuilt:
    """frame: the prompt with `mark(i)` in place of message i. scores: of the messages, None if not graded."""

    problem: str
    prompt: Prompt
    frame: Prompt
    messages: tuple[str, ...]
    scores: tuple[float | None, ...]
    response: str


def mark(number: int) -> str:
    """Replaces a message in a frame. Private-use characters, which no tokenizer, template or problem contains."""
    return f"\ue000{number}\ue001"


def rebuilt(out: Path, episodes: int) -> tuple[list[Rebuilt], Counter[str]]:
    """The syntheses of `episodes` episodes of a run, drawn by (problem, repeat), and how many were left out, by reason.

    The run's own P(x, M) rebuilds the prompts. A trajectory's id holds a digest of its prompt; a trajectory whose
    digest does not match is left out. Raises ConfigError for a folder without a run or a strategy without a prompt.
    """
    settings, versions = read_run(out, "strategy", "model", "seed")
    builder = prompt_builder(settings)
    lines = (line for line in read_lines(out / "results.jsonl") if next(shown_in(line), None))
    chosen = heapq.nsmallest(episodes, lines, key=lambda line: digest([line["request_id"], line["repeat"]]))
    found: list[Rebuilt] = []
    left_out: Counter[str] = Counter()
    for line in chosen:
        for made, name, identity in _of(line, builder, settings, versions["backend"]["fingerprint"]):
            if name.id == identity:
                found.append(made)
            else:
                left_out["its prompt cannot be rebuilt"] += 1
    return found, left_out


def _of(
    line: Mapping[str, Any], builder: PromptBuilder, settings: Mapping[str, Any], fingerprint: str
) -> Iterator[tuple[Rebuilt, SampleName, str]]:
    """Each synthesis with its actual id, and with the name it has if this prompt is the one that was sampled from."""
    trajectories = trajectories_of(line)
    grades = {sample["id"]: sample["score"] for sample in line["samples"]}
    problem = Problem(id=line["request_id"], messages=tuple(line["problem"]))
    model = Model(**{key: value for key, value in settings["model"].items() if key != "_target_"})
    for _, shown, facts in shown_in(line):
        messages = [Message(text=each["text"], sources=tuple(each["sources"])) for each in shown]
        marks = [Message(text=mark(i), sources=()) for i in range(len(messages))]
        prompt = builder(problem, messages)
        for fact in facts:
            made = Rebuilt(
                problem=problem.id,
                prompt=prompt,
                frame=builder(problem, marks),
                messages=tuple(message.text for message in messages),
                scores=tuple(
                    grades.get(message.sources[0]) if len(message.sources) == 1 else None for message in messages
                ),
                response=_whole(trajectories[fact["id"]]),
            )
            name = SampleName(
                fingerprint=fingerprint,
                prompt=digest(prompt),
                params=canonical(model.sampling),
                seed=settings["seed"],
                problem=problem.id,
                repeat=line["repeat"],
                index=fact["index"],
            )
            yield made, name, fact["id"]


def _whole(trajectory: Trajectory) -> str:
    """The response, with the thinking if a reasoning parser had split it off."""
    done = trajectory.completion
    return f"<think>\n{done.reasoning}\n</think>\n\n{done.content}" if done.reasoning else done.content
