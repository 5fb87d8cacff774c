"""Strategies that stop trajectories in the middle, on real engines: what they abort the engine says it has aborted.

The first of these files in the order of names: an engine that `test_life` starts in vLLM's process takes the process's
metrics with it when it dies, and what is left of them says nothing of this one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from pacore_lab.grading import NoGrader
from pacore_lab.interfaces import Backend, Strategy
from pacore_lab.sampling.dispatch import Dispatcher
from pacore_lab.sampling.sampler import EpisodeSampler
from pacore_lab.sampling.store import Store
from pacore_lab.types import Problem, SamplingParams, Trajectory
from strategies.adaptive import AgreementStop, Quorum
from strategies.compaction import Conclusion
from strategies.deepconf import DeepConfOnline
from strategies.orders import Published
from strategies.pacore import PaCoRe
from strategies.parallel_probe import ParallelProbe
from strategies.prompts import published
from strategies.schedules import Fixed
from strategies.short_m_at_k import ShortMAtK
from strategies.stopping import Beta
from tests.engines.metrics import idle, work
from tests.outside import finished_in

pytestmark = pytest.mark.asyncio(loop_scope="session")
PROBLEM = Problem(id="sum", messages=({"role": "user", "content": "What is 234 + 451? Answer in \\boxed{}."},))
PARAMS = SamplingParams(temperature=0.5, max_tokens=400, logprobs=True, top_logprobs=20)  # noise, often hundreds long
EPISODES = 2
MOST = 9  # trajectories of an episode in its first prompt


class Agreeing(NoGrader):
    """Hears the same answer in whatever is finished: something to agree on, and for the others to be astray from."""

    def extract(self, trajectory: Trajectory) -> str | None:
        return "x" if trajectory.content else None


def pacore(schedule: Quorum | AgreementStop) -> PaCoRe:
    return PaCoRe(schedule=schedule, prompt=published(), order=Published(), compaction=Conclusion(), grader=Agreeing())


STRATEGIES: dict[str, Strategy] = {
    "short_m_at_k": ShortMAtK(k=6, m=2, grader=NoGrader()),
    "deepconf_online": DeepConfOnline(grader=NoGrader(), warmup=3, budget=MOST, batch=6, keep=0.4, window=16, every=16),
    "parallel_probe": ParallelProbe(
        grader=Agreeing(), branches=8, every=16, warmup=0, patience=1, stable=100, probe_tokens=4
    ),
    "quorum": pacore(Quorum(of=Fixed(widths=[6]), share=0.5)),
    "agreement_stop": pacore(AgreementStop(of=Fixed(widths=[6]), rule=Beta(threshold=0.8))),
}


@asynccontextmanager
async def episodes(engine: Backend, path: Path) -> AsyncIterator[list[EpisodeSampler]]:
    store = await Store.open(path)
    try:
        dispatcher = Dispatcher(backend=engine, store=store, params=PARAMS, concurrency=64)
        yield [EpisodeSampler(dispatcher, seed=1, problem=PROBLEM.id, repeat=i) for i in range(EPISODES)]
    finally:
        await store.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def whole(engine: Backend, tmp_path_factory: pytest.TempPathFactory) -> list[list[Trajectory]]:
    """Of each episode the trajectories that nobody aborts: their seeds give the same ones to every strategy."""
    async with episodes(engine, tmp_path_factory.mktemp("whole") / "store.sqlite") as samplers:
        return await asyncio.gather(*(sampler.sample(PROBLEM.messages, MOST) for sampler in samplers))


@pytest.mark.parametrize("name", STRATEGIES)
async def test_the_engine_aborts_what_a_strategy_aborts(
    engine: Backend, kind: str, name: str, whole: list[list[Trajectory]], tmp_path: Path
) -> None:
    """As many requests, at once; and what the strategy pays for them is less than they would have cost."""
    path = tmp_path / "store.sqlite"
    before = await work(kind, engine)
    async with episodes(engine, path) as samplers:
        await asyncio.gather(*(STRATEGIES[name].solve(PROBLEM, sampler) for sampler in samplers))
        assert await idle(kind, engine, seconds=10) < 2
        after = await work(kind, engine)
    accounts = [sampler.account for sampler in samplers]
    aborted, discarded = (sum(getattr(each, key) for each in accounts) for key in ("aborted", "discarded"))
    seen = {item.id for sampler in samplers for item in sampler.drawn}
    too_late = {row["id"] for row in finished_in(path)} - seen  # ended by themselves before the abort came
    assert 1 <= aborted - len(too_late) <= after.aborted - before.aborted <= aborted
    full = 0
    for account, trajectories in zip(accounts, whole, strict=True):
        started = account.aborted + sum(each.id in seen for each in trajectories)
        full += sum(each.completion.generated_tokens for each in trajectories[:started] if each.id not in seen)
    assert 1 <= discarded < full
    if after.tokens is not None and before.tokens is not None:
        charged = sum(account.ttc for account in accounts)
        assert charged <= after.tokens - before.tokens
        if kind == "vllm":  # a server's chunks are a lower bound: what it had not sent yet is not known
            assert charged == after.tokens - before.tokens
