"""All (problem, repeat) episodes of a run, in flight at once within the concurrency limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence

from pacore_lab.errors import BackendError, BudgetSpent, ConfigError, StoreError
from pacore_lab.results.folder import RunFolder
from pacore_lab.results.line import line_of
from pacore_lab.running.parts import Run
from pacore_lab.sampling.budget import Budget
from pacore_lab.sampling.claims import Claims
from pacore_lab.sampling.dispatch import Dispatcher
from pacore_lab.sampling.sampler import EpisodeSampler
from pacore_lab.sampling.store import Store
from pacore_lab.showing import terminal
from pacore_lab.types import Problem


class Episodes:
    def __init__(self, run: Run, folder: RunFolder, store: Store) -> None:
        self._run = run
        self._folder = folder
        self._store = store
        self._budget = Budget(run.budget)
        self._dispatcher, *others = [
            Dispatcher(
                backend=backend,
                store=store,
                params=model.sampling,
                concurrency=run.concurrency,
                budget=self._budget,
                finish_aborted=run.finish_aborted,
            )
            for backend, model in [
                (run.backend, run.model),
                *((role.backend, role.model) for role in run.roles.values()),
            ]
        ]
        self._roles = dict(zip(run.roles, others, strict=True))
        self._done = 0
        self._unpaid = 0
        self._writing = asyncio.Semaphore(4)  # episodes being graded and written, their texts in memory

    async def run(self, problems: Sequence[Problem]) -> int:
        """Run the unfinished episodes. Returns how many of them the study's budget left undone."""
        episodes = [(problem, repeat) for repeat in range(self._run.repeats) for problem in problems]
        self._claims = Claims((problem.id, repeat) for problem, repeat in episodes)
        for line in self._folder.lines() if self._folder.done else ():
            self._budget.charged += line["tokens"]["ttc"]
            if line.get("claim"):
                self._claims.made((line["request_id"], line["repeat"]), *line["claim"])
            else:
                self._claims.end((line["request_id"], line["repeat"]))
        todo = [(problem, repeat) for problem, repeat in episodes if (problem.id, repeat) not in self._folder.done]
        with terminal.Progress(len(todo)) as progress:
            ticking = asyncio.create_task(self._tick(progress))
            try:
                async with asyncio.TaskGroup() as group:
                    for problem, repeat in todo:
                        group.create_task(self._episode(problem, repeat))
                for dispatcher in self._dispatchers:
                    await dispatcher.settle()
            except BaseExceptionGroup as failures:  # one dead engine fails every episode alike: say it once
                raise next(leaves(failures)) from None
            finally:
                ticking.cancel()
                for dispatcher in self._dispatchers:
                    await dispatcher.close()
                self._show(progress)
        return self._unpaid

    @property
    def _dispatchers(self) -> list[Dispatcher]:
        return [self._dispatcher, *self._roles.values()]

    async def _episode(self, problem: Problem, repeat: int) -> None:
        run, started = self._run, time.monotonic()
        sampler = EpisodeSampler(
            self._dispatcher,
            seed=run.seed,
            problem=problem.id,
            repeat=repeat,
            pool=run.pool,
            roles=self._roles,
            claims=self._claims,
        )
        solution, error = None, None
        try:
            solution = await run.strategy.solve(problem, sampler)
        except (BackendError, StoreError, ConfigError):
            raise  # concerns the whole run
        except BudgetSpent:
            self._unpaid += 1
            return
        except Exception as failure:  # a strategy's failure is this episode's data; the others go on
            error = f"{type(failure).__name__}: {failure}"
        finally:
            self._claims.end((problem.id, repeat))
        if sampler.lacking and error is None:
            error = "it needs trajectories that were never sampled for this store"
        async with self._writing:
            rows = await self._store.get([item.id for item in sampler.drawn])
            line = await line_of(problem, repeat, sampler, rows, solution, error, run.grader)
            self._folder.append({**line, "seconds": time.monotonic() - started})
        self._done += 1

    async def _tick(self, progress: terminal.Progress) -> None:
        while True:
            self._show(progress)
            await asyncio.sleep(0.25)

    def _show(self, progress: terminal.Progress) -> None:
        counters = [dispatcher.counters for dispatcher in self._dispatchers]
        progress.update(
            done=self._done,
            trajectories=sum(each.sampled + each.reused for each in counters),
            running=sum(each.running for each in counters),
            waiting=sum(dispatcher.slots.waiting for dispatcher in self._dispatchers),
            tokens=sum(each.generated_tokens for each in counters),
            failures=sum(each.failed for each in counters),
            retries=sum(each.retries for each in counters),
        )


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """The exceptions in a group and in the groups nested in it."""
    for failure in group.exceptions:
        if isinstance(failure, BaseExceptionGroup):
            yield from leaves(failure)
        else:
            yield failure
