"""One problem, one strategy, one backend: the lab without files and configuration."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path

from pacore_lab.errors import ConfigError
from pacore_lab.interfaces import Backend, Capabilities, Grader, OnChunk, Request, Strategy
from pacore_lab.running.needs import refuse_unsupported
from pacore_lab.running.parts import model_of, require_part_of_a_run, require_seed
from pacore_lab.sampling.dispatch import Dispatcher
from pacore_lab.sampling.sampler import EpisodeSampler
from pacore_lab.sampling.store import Store
from pacore_lab.types import ChatMessage, Completion, Model, Problem, Solution


async def solve(
    strategy: Strategy,
    problem: str | Sequence[ChatMessage] | Problem,
    backend: Backend,
    *,
    model: Model | None = None,
    store: str | Path | None = None,
    seed: int = 0,
    repeat: int = 0,
    concurrency: int = 256,
) -> Solution:
    """Solve one problem.

    problem: a question, a conversation, or a `Problem`.
    backend: started first and closed at the end; `opened` keeps it running for several problems.
    model: how to sample; None takes the backend's own `model`.
    store: a file that keeps every trajectory, so that the same call samples nothing twice; None keeps none.
    seed, repeat: name the draws, as in a run. concurrency: trajectories in flight at once.
    Raises ConfigError for an argument of the wrong kind, Unsupported before the first token if the backend cannot do
    what the strategy needs, and BackendError.
    """
    require_part_of_a_run("strategy", strategy)
    require_part_of_a_run("backend", backend)
    require_seed(seed)
    model = model or model_of(backend)
    if model is None:
        raise ConfigError(f"{type(backend).__name__} has no model of its own; give solve(..., model=Model(...))")
    asked = _problem(problem)
    async with opened(backend) as engine, _started(graders_of(strategy)):
        refuse_unsupported(strategy, model, engine.capabilities)
        kept = await Store.open(store or ":memory:")
        try:
            dispatcher = Dispatcher(backend=engine, store=kept, params=model.sampling, concurrency=concurrency)
            sampler = EpisodeSampler(dispatcher, seed=seed, problem=asked.id, repeat=repeat)
            solution = await strategy.solve(asked, sampler)
        finally:
            await kept.close()
    return replace(solution, tokens=sampler.account.ttc)


@asynccontextmanager
async def opened(backend: Backend) -> AsyncIterator[Backend]:
    """The backend, started; code inside the block neither starts nor closes it again.

    Blocks that overlap share it: the first to enter starts it, the last to leave closes it.
    """
    if isinstance(backend, _Opened):
        yield backend
        return
    key = id(backend), id(asyncio.get_running_loop())
    shared = _SHARED.setdefault(key, _Shared(backend))
    shared.users += 1
    try:
        async with shared.turn:
            if not shared.started:
                await backend.start()
                shared.started = True
        yield _Opened(backend)
    finally:
        shared.users -= 1
        async with shared.turn:
            if not shared.users:
                shared.started = False
                try:
                    await backend.close()
                finally:
                    if not shared.users:  # else somebody came meanwhile, and starts it again
                        _SHARED.pop(key, None)


@dataclass(eq=False)
class _Shared:
    """A backend with its users in this event loop. turn: starting and closing exclude one another."""

    backend: Backend
    users: int = 0
    started: bool = False
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


_SHARED: dict[tuple[int, int], _Shared] = {}


@asynccontextmanager
async def _started(graders: Sequence[Grader]) -> AsyncIterator[None]:
    try:
        for grader in graders:
            await grader.start()
        yield
    finally:
        for grader in graders:
            await grader.close()


def graders_of(part: object) -> list[Grader]:
    """The graders by which a strategy and its parts compare answers."""
    if not is_dataclass(part):
        return []
    values = [getattr(part, item.name) for item in fields(part)]
    own = [value for value in values if all(callable(getattr(value, name, None)) for name in ("grade", "classes"))]
    return own + [grader for value in values if value not in own for grader in graders_of(value)]


class _Opened:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.model = model_of(backend)

    @property
    def capabilities(self) -> Capabilities:
        return self._backend.capabilities

    @property
    def fingerprint(self) -> str:
        return self._backend.fingerprint

    async def start(self) -> None: ...

    async def complete(self, request: Request, on_chunk: OnChunk | None = None) -> Completion:
        return await self._backend.complete(request, on_chunk)

    async def close(self) -> None: ...


def _problem(asked: str | Sequence[ChatMessage] | Problem) -> Problem:
    """A `Problem`, with the id of `python run.py problems=ask` unless it has one, so that both take the same draws."""
    if isinstance(asked, Problem):
        return asked
    turns = [ChatMessage(role="user", content=asked)] if isinstance(asked, str) else asked
    if not isinstance(turns, Sequence) or not turns or not all(isinstance(turn, Mapping) for turn in turns):
        raise ConfigError(f"the problem is {asked!r:.80}; give a question, a conversation, or a Problem")
    return Problem(id="ask", messages=tuple(turns))
