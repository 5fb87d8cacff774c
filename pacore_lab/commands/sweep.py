"""Replay policies from a store: `python -m pacore_lab sweep OUT POLICY... [--store FILE] [--to FOLDER]`.

OUT is the folder of the run that filled the store, for instance `strategy=majority_vote strategy.k=64 pool=64`. A
policy is written as on run.py's command line, in one argument:
`"strategy=adaptive_consistency strategy.rule.threshold=0.9"`. Comma-separated values give several policies:
`"strategy=majority_vote strategy.k=1,2,4,8"`. Arrivals keep their order and lengths, and tokens are charged as if live
(`sampling.arrivals.Replayed`). Votes and stop rules are exact; an episode that needs a trajectory that was never
sampled is counted, but not graded.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
from rich.console import Console
from rich.progress import track

from pacore_lab import analysis
from pacore_lab.analysis import Method
from pacore_lab.commands.compare import Compared, add_margin, print_compared, write_compared
from pacore_lab.config.command import one_line_errors
from pacore_lab.config.stored import parts_of, policies_of
from pacore_lab.errors import ConfigError
from pacore_lab.grading.remembering import Remembering
from pacore_lab.interfaces import Strategy
from pacore_lab.results.folder import read_run
from pacore_lab.running.episodes import leaves
from pacore_lab.running.needs import refuse_unsupported
from pacore_lab.running.waiting import finished
from pacore_lab.sampling.claims import Claims
from pacore_lab.sampling.dispatch import Dispatcher
from pacore_lab.sampling.replay import LoadedStore, ReplayBackend
from pacore_lab.sampling.sampler import EpisodeSampler
from pacore_lab.sampling.store import Store
from pacore_lab.types import Model, Problem

Policy: TypeAlias = tuple[str, Strategy]
"""A name and the strategy it names."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A store with everything that determines how a policy replays from it. pool, repeats: as in a run."""

    store: LoadedStore
    backend: ReplayBackend
    model: Model
    problems: Sequence[Problem]
    grader: Remembering
    seed: int
    repeats: int
    pool: int | None

    async def replay(self, name: str, strategy: Strategy) -> tuple[Method, int]:
        """A policy's scores and tokens, and how many episodes the store could not serve. Raises Unsupported."""
        refuse_unsupported(strategy, self.model, self.backend.capabilities)
        dispatcher = Dispatcher(
            backend=self.backend,
            store=cast(Store, self.store),  # only read: the backend samples nothing
            params=self.model.sampling,
            concurrency=1,
        )
        claims = Claims((problem.id, repeat) for problem in self.problems for repeat in range(self.repeats))
        shape = len(self.problems), self.repeats
        scores, ttc, path = (np.full(shape, np.nan) for _ in range(3))
        lacking = 0

        async def episode(row: int, problem: Problem, repeat: int) -> None:
            nonlocal lacking
            sampler = EpisodeSampler(
                dispatcher, seed=self.seed, problem=problem.id, repeat=repeat, pool=self.pool, claims=claims
            )
            try:
                solution = await strategy.solve(problem, sampler)
            finally:
                claims.end((problem.id, repeat))
            if sampler.lacking:
                lacking += 1
                return
            grades = [await self.grader.grade(problem, answer) for answer in solution.answers]
            known = [grade.score for grade in grades if grade.score is not None]
            if len(known) == len(grades):
                scores[row, repeat] = sum(known) / len(known) if known else 0.0
            ttc[row, repeat], path[row, repeat] = sampler.account.ttc, sampler.account.critical_path

        try:
            async with asyncio.TaskGroup() as group:
                for row, problem in enumerate(self.problems):
                    for repeat in range(self.repeats):
                        group.create_task(episode(row, problem, repeat))
        except BaseExceptionGroup as failures:
            raise next(leaves(failures)) from None
        names = [problem.id for problem in self.problems]
        return Method.of(name, names, scores, ttc=ttc, critical_path=path), lacking


def sweep(
    out: Path,
    words: Sequence[str],
    *,
    store: Path,
    repeats: int | None = None,
    margin: float | None = None,
    shown: Callable[[Sequence[Policy]], Iterable[Policy]] = iter,
) -> Compared:
    """Replays every policy that `words` spell from the store of the run in `out`, paired with the first of them.

    repeats: for each policy; None takes the run's. margin: as in `compare`. shown: passes the policies on and shows
    progress. Raises LabError.
    """
    settings, versions = read_run(out, "model", "problems", "grader", "seed", "repeats", "limit", "pool")
    model, problems, grader = parts_of(settings)
    remembering = Remembering(grader)
    policies = policies_of(settings, words, remembering)
    if len({name for name, _ in policies}) < len(policies):
        raise ConfigError("a policy is named twice; name each once")
    backend = ReplayBackend(versions["backend"])
    bench = Bench(
        store=LoadedStore(store, backend.fingerprint),
        backend=backend,
        model=model,
        problems=problems.load()[: settings["limit"]],
        grader=remembering,
        seed=settings["seed"],
        repeats=repeats or settings["repeats"],
        pool=settings["pool"],
    )
    replayed = finished(_replay(bench, shown(policies)))
    methods = [method for method, _ in replayed]
    graded = [method for method in methods[1:] if np.isfinite(analysis.pairs(method, methods[0]).leads).any()]
    return Compared(
        methods=methods,
        rows=[analysis.row_of(method) for method in methods],
        baseline=methods[0],
        differences=analysis.table(graded, methods[0]),
        votes=None,
        remarks=[
            f"{method.name}: {lacking} of {method.scores.size} episodes needed trajectories never sampled: no grade"
            + ("; the others are not a fair sample" if lacking < method.scores.size else "")
            for method, lacking in replayed
            if lacking
        ],
        margin=margin,
    )


async def _replay(bench: Bench, policies: Iterable[Policy]) -> list[tuple[Method, int]]:
    await bench.grader.start()
    try:
        return [await bench.replay(name, strategy) for name, strategy in policies]
    finally:
        await bench.grader.close()


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pacore_lab sweep", description=__doc__)
    parser.add_argument("out", type=Path, help="folder of the run that filled the store")
    parser.add_argument("policy", nargs="+", help="strategy=... and what follows it, in one argument")
    parser.add_argument("--store", type=Path, default=Path("outputs/store.sqlite"), help="store that the run filled")
    parser.add_argument("--repeats", type=int, help="repeats of each policy; default: the run's")
    parser.add_argument("--to", type=Path, default=Path("outputs/sweep"), help="folder for CSV files and plots")
    add_margin(parser)
    given = parser.parse_args()
    if given.repeats is not None and given.repeats < 1:
        raise ConfigError(f"--repeats {given.repeats}: give 1 or more")
    console = Console(stderr=True)
    found = sweep(
        given.out,
        given.policy,
        store=given.store,
        repeats=given.repeats,
        margin=given.margin,
        shown=lambda policies: track(policies, "policies", console=console, transient=True),
    )
    print_compared(found)
    write_compared(found, given.to)
    print(f"tables and plots  {given.to}")
