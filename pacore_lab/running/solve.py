"""One problem, one strategy, one backend: the lab without files and configuration."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from pacore_lab.errors import ConfigError
from pacore_lab.interfaces import Backend, Capabilities, OnChunk, Request, Strategy
from pacore_lab.running.needs import refuse_unsupported
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
    Raises BackendError, ConfigError without a model, and, before the first token, Unsupported if the backend cannot do
    what the strategy needs.
    """
    model = model or getattr(backend, "model", None)
    if model is None:
        raise ConfigError(f"{type(backend).__name__} has no model of its own; give solve(..., model=Model(...))")
    asked = _problem(problem)
    async with opened(backend) as engine:
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
    """The backend, started; code inside the block neither starts nor closes it again."""
    if isinstance(backend, _Opened):
        yield backend
        return
    try:
        await backend.start()
        yield _Opened(backend)
    finally:
        await backend.close()


class _Opened:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.model: Model | None = getattr(backend, "model", None)

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
    return Problem(id="ask", messages=tuple(turns))
