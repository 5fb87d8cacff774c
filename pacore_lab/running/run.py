"""A run from its problems to its report."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pacore_lab import analysis
from pacore_lab.errors import BudgetSpent, ConfigError, DataError, LabError, within
from pacore_lab.interfaces import Arrivals
from pacore_lab.results.disk import write_json
from pacore_lab.results.folder import RunFolder, provenance
from pacore_lab.running.episodes import Episodes
from pacore_lab.running.needs import refuse_role, refuse_unsupported
from pacore_lab.running.parts import Run
from pacore_lab.sampling.store import Store
from pacore_lab.showing import report, terminal
from pacore_lab.types import Problem, Prompt, Trajectory


async def execute(run: Run) -> Path:
    """Sample, grade, write the folder, print the table; returns the folder.

    Raises LabError with one line for the user. SIGTERM cancels a run in the main thread.
    """
    with _cancelled_by_sigterm():
        return await _execute(run)


async def _execute(run: Run) -> Path:
    try:
        problems = run.problems.load()[: run.limit]
    except ValueError as error:
        raise DataError(str(error)) from error
    if not problems:
        raise DataError("the problem set is empty; check problems=, problems.path and limit")
    await _refuse_small_pool(run, problems[0])
    folder = RunFolder(run.out, run.settings, problems)
    folder.check()
    started = time.monotonic()
    engines = [run.backend, *(role.backend for role in run.roles.values())]
    try:
        await run.grader.start()
        await run.backend.start()
        for name, role in run.roles.items():
            with within(f"roles.{name}"):
                await role.backend.start()
        gc.freeze()  # an engine makes millions of lasting objects: the collector need not scan them again
        refuse_unsupported(run.strategy, run.model, run.backend.capabilities)
        for name, role in run.roles.items():
            refuse_role(run.strategy, name, role.model, role.backend.capabilities)
        async with _opened(run.store) as store:
            folder.open(provenance(run.name, getattr(run.problems, "origin", None), _engines(run), run.grader.version))
            unpaid = await Episodes(run, folder, store).run(problems)
        if folder.done:
            _conclude(run, folder, time.monotonic() - started, single=len(problems) * run.repeats == 1)
        if unpaid:
            raise BudgetSpent(
                f"budget={run.budget} tokens are spent: {len(folder.done)} episodes are done, {unpaid} are not; "
                "the same command with a larger budget= resumes"
            )
    finally:
        folder.close()
        await run.grader.close()
        for backend in engines:
            await backend.close()
        gc.unfreeze()
    return run.out


def _engines(run: Run) -> dict[str, Any]:
    """What the run's metadata say about its backend and those of its roles."""
    found = {"fingerprint": run.backend.fingerprint, **asdict(run.backend.capabilities)}
    roles = {
        name: {"model": role.model.name, "fingerprint": role.backend.fingerprint, **asdict(role.backend.capabilities)}
        for name, role in run.roles.items()
    }
    return {**found, "roles": roles} if roles else found


async def _refuse_small_pool(run: Run, problem: Problem) -> None:
    """Let the strategy ask once, with a sampler that only notes how many trajectories it wants."""
    if run.pool is None:
        return
    probe = _Probe()
    with contextlib.suppress(_Asked):
        await run.strategy.solve(problem, probe)
    if run.pool < probe.width:
        raise ConfigError(f"pool={run.pool} is smaller than the first round of {probe.width}; make it larger, or null")


class _Asked(BaseException):
    """Ends a probed strategy at its first request."""


class _Probe:
    width = 0
    spent = 0

    async def sample(self, prompt: Prompt, n: int, **_: object) -> list[Trajectory]:
        self.width = n
        raise _Asked

    @contextlib.asynccontextmanager
    async def stream(self, prompt: Prompt, n: int, **_: object) -> AsyncIterator[Arrivals]:
        self.width = n
        raise _Asked
        yield

    async def claim(self, weight: float, trajectories: int) -> int:
        raise _Asked


def _conclude(run: Run, folder: RunFolder, seconds: float, *, single: bool) -> None:
    """Table, summary and report, from all lines on disk, those of earlier, interrupted runs included."""
    rows = analysis.summarise(folder.lines(), run.name)
    counts = analysis.tally(folder.lines())
    compacted = analysis.compactions(folder.lines())
    summary = {
        "strategy": run.name,
        "rows": [asdict(row) for row in rows],
        "trajectories": {
            "sampled": counts.sampled,
            "reused": counts.reused,
            "truncated": counts.truncated,
            "uncounted": counts.uncounted,
        },
        "reasons": [{"kind": k, "reason": r, "count": n} for (k, r), n in counts.reasons.most_common()],
        "warnings": [{"kind": k, "warning": w, "count": n} for (k, w), n in counts.warnings.most_common()],
        "compaction": [asdict(each) for each in compacted],
        "seconds": seconds,
    }
    write_json(folder.path / "summary.json", summary)
    meta = {
        "strategy": run.name,
        "model": run.model.name,
        "config": json.dumps(run.settings, indent=2),
        **folder.versions,
        "problems": run.problem_set + (f" ({origin})" if (origin := folder.versions.get("problems")) else ""),
    }
    page = report.write_report(folder.path, rows, meta, folder.lines())
    if single:
        terminal.print_answer(next(folder.lines())["final_response"])
    terminal.print_table(rows, counts, compacted=compacted, report=page, results=folder.results)
    failed = [count for (kind, _), count in counts.reasons.items() if kind == "episode"]
    if sum(failed) == counts.episodes:
        reason = next(reason for (kind, reason), _ in counts.reasons.most_common() if kind == "episode")
        raise LabError(f"all {counts.episodes} episodes failed, most often with: {reason}")


@contextlib.contextmanager
def _cancelled_by_sigterm() -> Iterator[None]:
    """Only the main thread hears signals; a handler of the caller's is there again afterwards."""
    task = asyncio.current_task()
    assert task is not None
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop, before = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)


@contextlib.asynccontextmanager
async def _opened(path: Path) -> AsyncIterator[Store]:
    store = await Store.open(path)
    try:
        yield store
    finally:
        await store.close()
