"""The nouns of the lab, as plain frozen data. Names follow the paper (arXiv 2601.05593, section 2)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NotRequired, TypeAlias, TypedDict

WINDOW = 64
"""Tokens per entry of `Completion.window_logprobs`."""


class ChatMessage(TypedDict):
    """One turn of a conversation, as chat APIs take it. Further keys are passed on unchanged."""

    role: str
    content: str | list[dict[str, Any]] | None
    reasoning_content: NotRequired[str]


Prompt: TypeAlias = tuple[ChatMessage, ...]
"""A whole conversation, ready to send."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """A conversation to answer (x) and its ground truth, if there is one.

    answer: the correct answer, as text. reference: anything else a grader needs (tests, pass criteria); each grader
    names the keys it reads. A mapping that loads its values lazily has a `digest` of them, in hex digits.
    A problem with neither runs ungraded. group: category, subject or difficulty, for tables.
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
    """How tokens are sampled. `max_tokens=None` samples until the model's context is full (the published setting).

    top_logprobs: how many of the most likely tokens each token's confidence averages over (`Completion.confidences`);
    0 computes no confidences.
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
    """Which weights to use, how long their context is, and how to sample from them.

    name: the model's name on a server. path: folder or hub id of the weights, for in-process engines.
    context_length: prompt plus answer, in tokens; None takes the checkpoint's own.
    yarn_factor: RoPE scaling (YaRN, arXiv 2309.00071) over `yarn_original` tokens; attention temperature is unmodified.
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
        _ = self.sampling  # raises for bad values, naming their config keys
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

    content: the answer as the engine returned it, with its `<think>` part unless a reasoning parser split that off.
    reasoning: the part a reasoning parser split off, else "".
    finish_reason: "stop", "length", or whatever else the engine reported.
    counted: False if the server gave no token counts; the token figures are then lower bounds.
    max_tokens: the limit after clamping to the context; None if the backend leaves it to the engine.
    mean_logprob, window_logprobs: mean natural log-probability of the chosen tokens under the model's own distribution
    (before temperature and top-p), over all tokens and per window of 64; None unless requested.
    confidences: for each token, minus the mean log-probability of the `top_logprobs` most likely tokens at its place:
    0 or more, larger where the model is more confident (DeepConf, arXiv 2508.15260, equation 2); None unless requested.
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
    """One sampled w_r^(i).

    id: its name in the store. index: its place among the samples of its prompt.
    error: why it is unusable ("failed: ..."); its content then never counts as an answer.
    arrival: increases in the order in which trajectories reached the store.
    running: it is still being sampled, and `completion` is what it has so far (`Arrivals`).
    answer: what the grader extracts, None if nothing. answer_class: equal answers of a round have the same number,
    counted by first appearance. Both are set for the parts of a strategy that declare `needs = {"answers"}`.
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
    """A finished round: the ids of its trajectories in message order, and the messages made from them.

    classes: each trajectory's `answer_class`, in draw order.
    tokens: all tokens generated in the round. PaCoRe includes those of aborted trajectories and of the compaction.
    stopped: the plan's stop rule ended the round.
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

    answers: the final trajectory; several if a vote ties (the score is then their mean, the expectation of a uniform
    pick); empty if there is no valid answer, and `reason` says why.
    notes: what went wrong on the way (a judge's verdict could not be read), as short constant texts.
    tokens: test-time compute of the episode, discarded tokens included; 0 until `pacore_lab.solve` sets it.
    """

    answers: tuple[Trajectory, ...]
    rounds: tuple[Round, ...]
    reason: str = ""
    notes: tuple[str, ...] = ()
    tokens: int = 0

    @property
    def text(self) -> str:
        """The conclusion of the (first) answer; "" if there is none, and `reason` says why."""
        return self.answers[0].conclusion.strip() if self.answers else ""

    @classmethod
    def of(cls, final: Trajectory, rounds: Sequence[Round]) -> Solution:
        """The usual case: `final` is the answer, unless it failed or is empty."""
        if not final.content:
            reason = final.error or f"empty final response (finish reason {final.completion.finish_reason})"
            return cls(answers=(), rounds=tuple(rounds), reason=reason)
        return cls(answers=(final,), rounds=tuple(rounds))


@dataclass(frozen=True, kw_only=True, slots=True)
class Grade:
    """score in [0, 1], or None for "ungraded", with the reason; `answer` is what was extracted from the response.

    warnings: why the grade may be wrong ("several boxes ..."), short constant texts, so that they can be counted.
    details: other findings of the grader (share of tests passed, a judge's verdict and confidence); JSON values.
    tokens: generated by a judge for this grade; not part of test-time compute.
    """

    score: float | None
    answer: str | None = None
    reason: str = ""
    warnings: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    tokens: int = 0


def mean_and_windows(logprobs: Sequence[float]) -> tuple[float | None, tuple[float, ...] | None]:
    """`Completion.mean_logprob` and `window_logprobs`, from the log-probability of each chosen token."""
    if not logprobs:
        return None, None
    windows = [logprobs[i : i + WINDOW] for i in range(0, len(logprobs), WINDOW)]
    return math.fsum(logprobs) / len(logprobs), tuple(math.fsum(window) / len(window) for window in windows)


def conclusion(content: str) -> str:
    """The text after the LAST `</think>`, or all of it if there is none (published client; paper section 2.1)."""
    return content.rpartition("</think>")[2]


def text_of(content: str | list[dict[str, Any]] | None) -> str:
    """The text of a turn's content; for list-shaped content, its text parts joined by newlines."""
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(str(part["text"]) for part in content if part.get("type", "text") == "text" and "text" in part)
