"""The nouns of the lab, as plain frozen data. Names follow the paper (arXiv 2601.05593, section 2)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypeAlias, TypedDict

WINDOW = 64
"""Tokens per entry of `Completion.window_logprobs`."""


class ChatMessage(TypedDict):
    """One turn of a conversation, as chat APIs take it; keys beyond these two travel unchanged."""

    role: str
    content: str | list[dict[str, Any]] | None
    reasoning_content: NotRequired[str]


Prompt: TypeAlias = tuple[ChatMessage, ...]
"""A whole conversation, ready to be sent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """A conversation to answer (x) and, where one exists, its ground truth.

    answer: as text. reference: what else a grader needs (tests, pass criteria); each grader names the keys it reads.
    A mapping that reads its values when needed carries a `digest` of them, hex digits.
    With neither the problem runs ungraded. group: its category, subject or difficulty, for tables.
    """

    id: str
    messages: Prompt
    answer: str | None = None
    reference: Mapping[str, Any] = field(default_factory=dict)
    group: str | None = None

    @property
    def gradable(self) -> bool:
        return self.answer is not None or bool(self.reference)


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingParams:
    """How tokens are drawn. `max_tokens=None`: until the model's context is full (the published setting).

    top_logprobs: of how many likeliest tokens a token's confidence is made (`Completion.confidences`); 0 for none.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int | None = None
    logprobs: bool = False
    top_logprobs: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"model.temperature is {self.temperature}; it must be 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"model.top_p is {self.top_p}; it must lie in (0, 1]")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"model.max_tokens is {self.max_tokens}; give 1 or more, or null for the whole context")
        if self.top_logprobs < 0:
            raise ValueError(f"model.top_logprobs is {self.top_logprobs}; give 20 (as DeepConf does), or 0 for none")
        if self.top_logprobs and not self.logprobs:
            raise ValueError(f"model.top_logprobs is {self.top_logprobs}, which needs model.logprobs=true")


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """Which weights, how long a context, and how to sample from them.

    path: folder or hub id of the weights (in-process engines); `name` is what a server knows the model as.
    context_length: tokens of prompt and answer together; None takes the checkpoint's own.
    yarn_factor: RoPE scaling (YaRN, arXiv 2309.00071) over `yarn_original`, attention temperature unmodified.
    """

    name: str
    path: str | None = None
    revision: str | None = None
    dtype: str = "auto"
    context_length: int | None = None
    yarn_factor: float | None = None
    yarn_original: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int | None = None
    logprobs: bool = False
    top_logprobs: int = 0
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _ = self.sampling  # refuses bad values under their config keys
        if self.context_length is not None and self.context_length < 2:
            raise ValueError(f"model.context_length is {self.context_length}; it must hold a prompt and an answer")
        if self.yarn_factor is not None and (self.yarn_factor < 1 or self.yarn_original is None):
            raise ValueError(
                "model.yarn_factor must be 1 or more and needs model.yarn_original (tokens before scaling)"
            )

    @property
    def sampling(self) -> SamplingParams:
        return SamplingParams(
            temperature=float(self.temperature),
            top_p=float(self.top_p),
            max_tokens=self.max_tokens,
            logprobs=self.logprobs,
            top_logprobs=self.top_logprobs,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What an engine returned for one request.

    content: the answer as the engine gave it, `<think>` part included unless a reasoning parser split it off.
    reasoning: the part a reasoning parser split off, else "".
    finish_reason: "stop", "length", or whatever else the engine said.
    counted: False where the server gave no token count: its token figures are then lower bounds.
    max_tokens: the bound after clamping to the context, None where the backend leaves it to the engine.
    mean_logprob, window_logprobs: mean natural log-probability of the chosen tokens under the model's own distribution
    (before temperature and top-p), over all of them and per window of 64; None unless asked for.
    confidences: of each token, minus the mean log-probability of the `top_logprobs` likeliest tokens in its place: 0 or
    more, larger where the model is surer (DeepConf, arXiv 2508.15260, equation 2); None unless asked for.
    """

    content: str
    reasoning: str = ""
    finish_reason: str = "stop"
    prompt_tokens: int = 0
    generated_tokens: int = 0
    cached_tokens: int = 0
    counted: bool = True
    max_tokens: int | None = None
    clamped: bool = False
    mean_logprob: float | None = None
    window_logprobs: tuple[float, ...] | None = None
    confidences: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Trajectory:
    """One sampled w_r^(i): its name in the store, its place among the samples of its prompt, and what came back.

    error: why there is nothing usable ("failed: ..."); its content is then never an answer.
    arrival: grows in the order in which trajectories reached the store.
    running: it is still being sampled, and this is what there is of it (`Arrivals`).
    answer, answer_class: what the grader extracts, and which answers of its round are the same (numbered by first
    appearance; None for none); set for the parts of a strategy that declare `needs = {"answers"}`.
    """

    id: str
    index: int
    completion: Completion
    error: str | None = None
    reused: bool = False
    arrival: int = 0
    running: bool = False
    answer: str | None = None
    answer_class: int | None = None

    @property
    def content(self) -> str:
        return "" if self.error else self.completion.content

    @property
    def conclusion(self) -> str:
        return conclusion(self.content)

    @property
    def truncated(self) -> bool:
        return self.completion.finish_reason == "length"


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """A compacted trajectory m_r^(i) and the ids of the trajectories it was made from."""

    text: str
    sources: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """A finished round: ids of its trajectories in message order, and the messages made of them.

    classes: each trajectory's `answer_class`, in draw order.
    tokens: all that the round has generated. PaCoRe includes aborted trajectories and what the compaction asked.
    stopped: the round ended by its plan's stop rule.
    """

    trajectories: tuple[str, ...]
    messages: tuple[Message, ...]
    classes: tuple[int | None, ...] = ()
    tokens: int = 0
    stopped: bool = False

    @classmethod
    def of(cls, trajectories: Sequence[Trajectory], messages: tuple[Message, ...] = ()) -> Round:
        return cls(
            trajectories=tuple(trajectory.id for trajectory in trajectories),
            messages=messages,
            classes=tuple(trajectory.answer_class for trajectory in trajectories),
            tokens=sum(trajectory.completion.generated_tokens for trajectory in trajectories),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Solution:
    """What a strategy found.

    answers: the final trajectory; several where a vote ties (the score is then the mean over them, the expectation
    of a uniform pick); none where no valid answer came out, with `reason` saying why.
    notes: what went otherwise than planned on the way to them (a judge that could not be read), short constant texts.
    tokens: test-time compute of the episode, discarded tokens included; set by `pacore_lab.solve`, 0 before.
    """

    answers: tuple[Trajectory, ...]
    rounds: tuple[Round, ...]
    reason: str = ""
    notes: tuple[str, ...] = ()
    tokens: int = 0

    @property
    def text(self) -> str:
        """The conclusion of the (first) answer; "" where there is none, and `reason` says why."""
        return self.answers[0].conclusion.strip() if self.answers else ""

    @classmethod
    def of(cls, final: Trajectory, rounds: Sequence[Round]) -> Solution:
        """The usual end: one final trajectory, unless it failed or is empty."""
        if not final.content:
            reason = final.error or f"empty final response (finish reason {final.completion.finish_reason})"
            return cls(answers=(), rounds=tuple(rounds), reason=reason)
        return cls(answers=(final,), rounds=tuple(rounds))


@dataclass(frozen=True, kw_only=True, slots=True)
class Grade:
    """score in [0, 1], or None for "ungraded", with the reason; `answer` is what was extracted from the response.

    warnings: why the grade may be wrong ("several boxes ..."), short constant texts, so that they can be counted.
    details: what a grader found besides (share of tests passed, a judge's verdict and confidence); JSON values.
    tokens: generated by a judge for this grade; no part of TTC.
    """

    score: float | None
    answer: str | None = None
    reason: str = ""
    warnings: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    tokens: int = 0


def mean_and_windows(logprobs: Sequence[float]) -> tuple[float | None, tuple[float, ...] | None]:
    """`Completion.mean_logprob` and `window_logprobs` of the log-probability of each chosen token."""
    if not logprobs:
        return None, None
    windows = [logprobs[i : i + WINDOW] for i in range(0, len(logprobs), WINDOW)]
    return math.fsum(logprobs) / len(logprobs), tuple(math.fsum(window) / len(window) for window in windows)


def conclusion(content: str) -> str:
    """The text after the LAST `</think>`; without one, all of it (published client; paper section 2.1)."""
    return content.rpartition("</think>")[2]


def text_of(content: str | list[dict[str, Any]] | None) -> str:
    """The text of a turn; of list-shaped content, its text parts joined by newlines."""
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(str(part["text"]) for part in content if part.get("type", "text") == "text" and "text" in part)
