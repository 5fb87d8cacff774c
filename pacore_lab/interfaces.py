"""The seams. A plug-in implements one of these Protocols and imports only this module and `pacore_lab.types`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from pacore_lab.types import Completion, Grade, Message, Problem, Prompt, Round, SamplingParams, Solution, Trajectory


@dataclass(frozen=True, kw_only=True, slots=True)
class Capabilities:
    """What a backend can honour. A run that asks for more is refused before the first token.

    seeds: "request" (each request's seed is honoured), "engine" (one seed for all requests) or "none".
    logprobs: "none", "chosen" (only those of the chosen tokens) or "topk" (also those of the `top_logprobs` most likely
    tokens, at most `most_top_logprobs`; None: any number).
    partial: the backend reports what an aborted trajectory had generated, so that its tokens are counted.
    prefill: the backend can continue a prompt that ends with an assistant turn.
    replay: the backend samples nothing; every trajectory comes from the store.
    priority: waiting requests are served in the order of `Request.priority`.
    schema: answers follow `Request.schema`.
    context_length: prompt plus answer, in tokens; None if unknown.
    evidence: which engine this is and how its capabilities were determined, for the run's metadata.
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

    priority: engines with a queue of their own serve lower values first. schema: a JSON schema, as text, that the
    answer must follow; set only if `Capabilities.schema` is true.
    """

    id: str
    prompt: Prompt
    params: SamplingParams
    seed: int
    priority: int = 0
    schema: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """A piece of a running trajectory: its text, its number of tokens, and their confidences if requested."""

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
        """Identifies the weights and all else that determines the distribution of samples. Valid after `start`."""
        ...

    async def start(self) -> None:
        """Load or connect. Raises BackendError if that fails."""
        ...

    async def complete(self, request: Request, on_chunk: OnChunk | None = None) -> Completion:
        """Sample one completion. Cancelling the call aborts it in the engine.

        on_chunk: called as text arrives and, before a cancelled call ends, with the last text. Without it a backend
        may answer in one piece.
        Raises TransientError, RequestError or EngineDead.
        """
        ...

    async def close(self) -> None:
        """Free everything; safe to call twice and after a failed `start`."""
        ...


class Arrivals(Protocol):
    """Trajectories as they finish (`async for`) and, with `every`, running ones with what they have so far."""

    def __aiter__(self) -> AsyncIterator[Trajectory]: ...

    def abort(self, trajectory: Trajectory) -> None:
        """Stop a running trajectory: it no longer arrives, and its tokens count as discarded."""
        ...


class Sampler(Protocol):
    """The only I/O a strategy sees (`sampling.sampler.EpisodeSampler`): trajectories of one (problem, repeat).

    role: the role to ask, if the run gives it a model of its own (`model@roles.judge=...`); any other role, or None,
    asks the run's model. A strategy or part keeps the roles it asks in fields named `role` or `roles`.
    """

    @property
    def spent(self) -> int:
        """Tokens generated for the episode so far, discarded ones included."""
        ...

    async def sample(
        self, prompt: Prompt, n: int, *, role: str | None = None, max_tokens: int | None = None
    ) -> list[Trajectory]:
        """n trajectories in index order. Asking again for the same prompt continues with fresh indices.

        Failed trajectories are included, with `error` set. Every trajectory is in the store before it is returned.
        max_tokens: a limit for each trajectory, besides the model's own; None adds none.
        """
        ...

    def stream(
        self, prompt: Prompt, n: int, *, role: str | None = None, every: int | None = None
    ) -> AbstractAsyncContextManager[Arrivals]:
        """The same n trajectories as they finish. Leaving the block aborts the rest; their tokens count as discarded.

        every: a running trajectory also arrives (`running=True`, with its completion so far) after about every `every`
        tokens; `abort` stops it.
        """
        ...

    async def claim(self, weight: float, trajectories: int) -> int:
        """Every episode puts `trajectories` into a common pot; this returns the episode's share of it.

        The share is proportional to `weight` (0 or more). An episode claims once, before its last round, because the
        call waits until every episode of the run has claimed or ended. Shares are whole numbers that add up to the pot;
        equal weights get equal shares, to within one trajectory.
        """
        ...


class Strategy(Protocol):
    """Solves one problem. A strategy or part may declare what it requires in a class attribute `needs`:

    "logprobs"      log-probabilities of every trajectory
    "top_logprobs"  the confidence of every token
    "partial"       streaming and aborting
    "prefill"       continuing an assistant turn
    "seeds"         a seed per trajectory
    "priority"      requests served in the order of their priority
    "answers"       a grader that compares answers

    A run that cannot meet a need is refused before the first token (`pacore_lab.running.needs`).
    """

    async def solve(self, problem: Problem, sampler: Sampler) -> Solution: ...


def needs_of(part: object) -> frozenset[str]:
    """Everything that a strategy and its parts declare in `needs`."""
    own = frozenset(getattr(part, "needs", ()))
    if is_dataclass(part):
        own = own.union(*(needs_of(getattr(part, item.name)) for item in fields(part)))
    return own


class PromptBuilder(Protocol):
    """P(x, M): the conversation for the next round. An empty M gives the problem unmodified."""

    def __call__(self, problem: Problem, messages: Sequence[Message]) -> Prompt: ...


class Order(Protocol):
    """The order in which the next round is shown a round's trajectories; a permutation that drops none."""

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]: ...


class Compaction(Protocol):
    """M_r = C(Omega_r), equation (2): turns a round's trajectories, in order, into messages.

    Each message keeps the ids of its trajectories. Failed and empty trajectories give no message. Randomness is seeded
    by the trajectories' ids, so that the same round always compacts the same way.
    """

    def __call__(self, trajectories: Sequence[Trajectory]) -> tuple[Message, ...]: ...


@runtime_checkable
class AskingCompaction(Protocol):
    """A compaction made by asking a model: as `Compaction`, with the problem and a sampler to ask."""

    async def compact(
        self, problem: Problem, trajectories: Sequence[Trajectory], sampler: Sampler
    ) -> tuple[Message, ...]: ...


AnyCompaction: TypeAlias = Compaction | AskingCompaction


class Views(Protocol):
    """The messages that each trajectory of the next round is shown: `width` tuples of messages."""

    def __call__(self, messages: tuple[Message, ...], width: int) -> list[tuple[Message, ...]]: ...


class StopRule(Protocol):
    """Whether the answers so far suffice. classes: the class of each, in arrival order (None for no answer)."""

    def __call__(self, classes: Sequence[int | None]) -> bool: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The next round: start `width` trajectories; at `quorum` usable ones, or when `stop` says so, abort the rest.

    Without either, wait for all. batch: start this many at a time, so that nothing needs to be aborted.
    """

    width: int
    quorum: int | None = None
    stop: StopRule | None = None
    batch: int | None = None


class Schedule(Protocol):
    """Plans the next round from the rounds so far, or returns None to stop.

    A round's `tokens` are its cost so far, including its compaction once that is done. A schedule has no state: it is
    also asked before each compaction, so that no model summarises the last round in vain.
    The answer is the only trajectory of the last round, or a vote if there are several.
    """

    def __call__(self, rounds: Sequence[Round]) -> Plan | None: ...


class ProblemSet(Protocol):
    """Loads problems.

    An optional attribute `origin`, valid after `load`, says what was read: id and commit, or path and digest.
    """

    def load(self) -> list[Problem]:
        """All problems, with unique ids. Raises DataError, naming file and line."""
        ...


class Grader(Protocol):
    """Grades without knowing the strategy, and compares answers without looking at the ground truth.

    Two optional class attributes. `comparable = False`: answers cannot be compared (programs, prose), so there is
    nothing to vote on. `costly = True`: a grade costs as much as a sample (a judge), so only the final answer and the
    first sample of each episode are graded.
    """

    @property
    def version(self) -> str:
        """Identifies all that determines a grade: the method, its version, and those of its libraries and models.

        Valid after `start`.
        """
        ...

    async def start(self) -> None:
        """Get ready, before the first token is sampled. Raises ConfigError or BackendError if it cannot grade."""
        ...

    def extract(self, trajectory: Trajectory) -> str | None:
        """A trajectory's compact answer, None if it has none (failed, truncated, no box)."""
        ...

    async def classes(self, answers: Sequence[str | None]) -> list[int | None]:
        """Equivalence class of each answer, numbered by first appearance; None stays None."""
        ...

    async def grade(self, problem: Problem, trajectory: Trajectory) -> Grade:
        """Grade one trajectory. A fault of the grader itself gives `score=None` with the reason, never 0."""
        ...

    async def close(self) -> None:
        """Free everything; safe to call twice and after a failed `start`."""
        ...
