"""The seams. A plug-in implements one of these Protocols and imports only this module and `pacore_lab.types`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from pacore_lab.types import Completion, Grade, Message, Problem, Prompt, Round, SamplingParams, Solution, Trajectory


@dataclass(frozen=True, kw_only=True, slots=True)
class Capabilities:
    """What a backend can honour. Whatever a run asks for beyond this is refused before the first token.

    seeds: "request" - each request's seed is honoured; "engine" - one seed for all; "none".
    logprobs: none, of the chosen tokens, or "topk": of the `top_logprobs` likeliest tokens too, at most
    `most_top_logprobs` of them (None: any number).
    partial: what an aborted trajectory had is reported, so that its tokens are counted.
    prefill: a prompt that ends with a turn of the assistant is gone on with, as if the model had said that itself.
    replay: the backend samples nothing; every trajectory comes from the store.
    priority: waiting requests are served in the order of `Request.priority`.
    schema: an answer follows `Request.schema`.
    context_length: tokens of prompt and answer together, None where it is not known.
    evidence: which engine this is and how the above was found out, for the run's metadata.
    """

    seeds: Literal["none", "engine", "request"] = "none"
    logprobs: Literal["none", "chosen", "topk"] = "none"
    most_top_logprobs: int | None = None
    partial: bool = False
    prefill: bool = False
    replay: bool = False
    priority: bool = False
    schema: bool = False
    context_length: int | None = None
    evidence: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One trajectory to sample.

    priority: lower is served first by engines that have a queue of their own. schema: a JSON schema, as text, that the
    answer has to follow; set only where the backend's capability says so.
    """

    id: str
    prompt: Prompt
    params: SamplingParams
    seed: int
    priority: int = 0
    schema: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """A piece of a trajectory in the making: its text, how many tokens it is, and their confidences if asked for."""

    text: str
    tokens: int
    confidences: tuple[float, ...] = ()


OnChunk: TypeAlias = Callable[[Chunk], None]


class Backend(Protocol):
    """The smallest thing an engine can do: one request in, its completion out.

    Batching, seeds, log-probabilities, chat rendering and context limits are the backend's business.
    """

    @property
    def capabilities(self) -> Capabilities:
        """Valid after `start`."""
        ...

    @property
    def fingerprint(self) -> str:
        """Names the weights and what else decides the distribution of samples. Valid after `start`."""
        ...

    async def start(self) -> None:
        """Load or connect. Raises BackendError when that is impossible."""
        ...

    async def complete(self, request: Request, on_chunk: OnChunk | None = None) -> Completion:
        """Sample one completion. Cancelling the call aborts it in the engine.

        on_chunk: called as text arrives, and before a cancelled call ends with what came last; without it a backend
        is free to answer in one piece.
        Raises TransientError, RequestError or EngineDead.
        """
        ...

    async def close(self) -> None:
        """Free everything; safe to call twice and after a failed `start`."""
        ...


class Arrivals(Protocol):
    """Trajectories as they finish (`async for`) and, with `every`, what running ones have so far."""

    def __aiter__(self) -> AsyncIterator[Trajectory]: ...

    def abort(self, trajectory: Trajectory) -> None:
        """Stop a running one: it does not arrive any more, and its tokens count as discarded."""
        ...


class Sampler(Protocol):
    """The only I/O a strategy sees (`sampling.sampler.EpisodeSampler`): trajectories of one (problem, repeat).

    role: who is asked, where a run gives its roles models of their own (`model@roles.judge=...`); any other role, and
    none, is the run's model. A strategy or part keeps the roles it asks in fields named `role` or `roles`.
    """

    @property
    def spent(self) -> int:
        """Tokens generated for the episode so far, discarded ones included."""
        ...

    async def sample(
        self, prompt: Prompt, n: int, *, role: str | None = None, max_tokens: int | None = None
    ) -> list[Trajectory]:
        """n trajectories in index order. Asking again for the same prompt continues with fresh indices.

        A trajectory that failed is among them, with `error` set. Each is in the store before it is returned.
        max_tokens: at most so many each; None as the model is set.
        """
        ...

    def stream(
        self, prompt: Prompt, n: int, *, role: str | None = None, every: int | None = None
    ) -> AbstractAsyncContextManager[Arrivals]:
        """The same n trajectories as they finish; leaving the block aborts the rest: their tokens are discarded.

        every: a running trajectory arrives too (`running=True`, the completion so far) whenever it has about so many
        more tokens; `abort` stops it.
        """
        ...

    async def claim(self, weight: float, trajectories: int) -> int:
        """This episode's share of `trajectories` times the run's episodes, in proportion to its `weight` (0 or more).

        Waits until every episode of the run has claimed or ended, so it is asked once, before the last round. Shares
        are whole and add up to what the episodes that claim bring in; equal weights get equal shares.
        """
        ...


class Strategy(Protocol):
    """Solves one problem. `needs`, an optional class attribute of a strategy and of its parts, says what each requires:

    "logprobs"      of every trajectory
    "top_logprobs"  the confidence of every token
    "partial"       streaming and aborting
    "prefill"       continuing a given beginning
    "seeds"         a seed per trajectory
    "priority"      requests served in the order of their priority
    "answers"       a grader that compares answers

    A run that lacks one of them is refused before the first token (`pacore_lab.running.needs`).
    """

    async def solve(self, problem: Problem, sampler: Sampler) -> Solution: ...


def needs_of(part: object) -> frozenset[str]:
    """Everything that a strategy and the parts it is made of declare in `needs`."""
    own = frozenset(getattr(part, "needs", ()))
    if is_dataclass(part):
        own = own.union(*(needs_of(getattr(part, item.name)) for item in fields(part)))
    return own


class PromptBuilder(Protocol):
    """P(x, M): the conversation for the next round. M empty gives the problem unmodified."""

    def __call__(self, problem: Problem, messages: Sequence[Message]) -> Prompt: ...


class Order(Protocol):
    """The order in which a round's trajectories are shown to the next; a permutation, nothing is dropped."""

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]: ...


class Compaction(Protocol):
    """M_r = C(Omega_r), equation (2): the trajectories of a round, in order, to messages.

    Each message keeps the ids of its trajectories. Failed and empty trajectories give no message. Randomness comes
    from the trajectories' ids, so that the same round compacts the same way again.
    """

    def __call__(self, trajectories: Sequence[Trajectory]) -> tuple[Message, ...]: ...


@runtime_checkable
class AskingCompaction(Protocol):
    """A compaction that a model makes: as `Compaction`, with the problem and a sampler to ask."""

    async def compact(
        self, problem: Problem, trajectories: Sequence[Trajectory], sampler: Sampler
    ) -> tuple[Message, ...]: ...


AnyCompaction: TypeAlias = Compaction | AskingCompaction


class Views(Protocol):
    """Which of the messages each of the next round's trajectories is shown: `width` tuples of them."""

    def __call__(self, messages: tuple[Message, ...], width: int) -> list[tuple[Message, ...]]: ...


class StopRule(Protocol):
    """Whether enough is known. classes: of the answers so far, in the order in which they came (None for none)."""

    def __call__(self, classes: Sequence[int | None]) -> bool: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The next round: `width` trajectories are started; at `quorum` usable ones, or when `stop` says so, the rest is
    aborted. Without either all are awaited. batch: so many are started at a time, so that nothing has to be aborted.
    """

    width: int
    quorum: int | None = None
    stop: StopRule | None = None
    batch: int | None = None


class Schedule(Protocol):
    """Plans the next round from the rounds so far, or gives None to stop.

    A round's `tokens` hold all that it has cost by then, its compaction included. A schedule has no state: it is asked
    again before a compaction that asks a model, so that a last round is not summarised for nobody.
    The answer is the trajectory of a last round of one, and a vote over any other last round.
    """

    def __call__(self, rounds: Sequence[Round]) -> Plan | None: ...


class ProblemSet(Protocol):
    """An optional attribute `origin`, valid after `load`, says what was read: id and commit, or path and digest."""

    def load(self) -> list[Problem]:
        """All problems, ids unique. Raises DataError naming file and line."""
        ...


class Grader(Protocol):
    """Grades blind to the strategy. Equivalence of answers never looks at the ground truth.

    Two optional class attributes: `comparable = False`, answers have no equivalence (programs, prose), so that there is
    nothing to vote on; `costly = True`, a grade costs as much as a sample (a judge), so that of each episode only the
    final answer and the first sample are graded.
    """

    @property
    def version(self) -> str:
        """Names everything that decides a grade: method, its version, those of the libraries and models it rests on.

        Valid after `start`.
        """
        ...

    async def start(self) -> None:
        """Get ready, before the first token is sampled. Raises ConfigError or BackendError where it cannot grade."""
        ...

    def extract(self, trajectory: Trajectory) -> str | None:
        """The compact answer of a trajectory, None where there is none (failed, truncated, no box)."""
        ...

    async def classes(self, answers: Sequence[str | None]) -> list[int | None]:
        """Equivalence class of each answer, numbered by first appearance; None stays None."""
        ...

    async def grade(self, problem: Problem, trajectory: Trajectory) -> Grade:
        """A fault of the grader itself is `score=None` with the reason, never 0."""
        ...

    async def close(self) -> None:
        """Free everything; safe to call twice and after a failed `start`."""
        ...
