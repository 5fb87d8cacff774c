"""The reward that verl calls for every response: the core's graders, which see the bare problem and no messages.

    reward.custom_reward_function.path=pkg://pacore_lab.training.verl.reward

verl needs a number for every response. A response that could not be graded (a fault of the grader, not of the response)
is logged as a warning and gets UNGRADED. To the trainer that is as good as 0, so it takes the response for wrong; in
the trainer's dump the two can be told apart. If we raised instead, the response would be missing from batch and dump,
where nothing counts it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pacore_lab.errors import DataError
from pacore_lab.grading.code import LcbSubprocess
from pacore_lab.grading.math_grader import MathGrader
from pacore_lab.interfaces import Grader
from pacore_lab.showing.text import safe
from pacore_lab.training.environment import Instance
from pacore_lab.training.records import read_records
from pacore_lab.types import Completion, Trajectory

UNGRADED = 2.0**-100
"""The score of an ungraded response. No grade is this small; float32, bfloat16 and JSON hold it exactly."""
_log = logging.getLogger(__name__)


def ground_truth(instance: Instance, number: int) -> str:
    """The parts of an instance that go to the reward and into the trainer's dump, as JSON.

    Tests of a code problem are left out: the dump would hold them once per response.
    """
    return json.dumps(
        {
            "record": instance.record,
            "number": number,
            "domain": "code" if instance.problem.reference else "math",
            "answer": instance.problem.answer,
            "scores": instance.scores,
        }
    )


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    *,
    records: str,
    workers: int,
) -> float:
    """The reward in [0, 1]: 0 or 1 for mathematics, the share of tests passed for code; UNGRADED without a grade.

    solution_str: the whole response. extra_info["truncated"] (`manager.Truncating`): whether the response was
    truncated, so that it has no conclusion. records: the file the data set draws from. workers: programs that run at
    once in this process. This is a coroutine, so verl awaits it on its reward worker's loop and grades concurrently.
    Raises DataError for a record that is not in the file, ConfigError if there is no sandbox for programs.
    """
    graders = _graders(records, workers)
    told = json.loads(ground_truth)
    problem = graders.problems.get(told["record"])
    if problem is None:
        raise DataError(f"{records}: there is no record {told['record']!r}; reward and data set need the same file")
    cut = bool(extra_info and extra_info.get("truncated"))
    completion = Completion(content=solution_str, finish_reason="length" if cut else "stop")
    grader = await graders.of(told["domain"])
    grade = await grader.grade(problem, Trajectory(id="", index=0, completion=completion))
    if grade.score is None:
        _log.warning("not graded, so no reward (record %s): %s", safe(told["record"]), safe(grade.reason))
        return UNGRADED
    return grade.score


class _Graders:
    """A reward worker's problems and graders, for the one event loop such a worker has."""

    def __init__(self, records: Path, workers: int) -> None:
        self.problems = {record.id: record.problem for record in read_records(records)}
        self._graders: dict[str, Grader] = {
            "math": MathGrader(),
            "code": LcbSubprocess(score="share", workers=workers),
        }
        self._starts: dict[str, asyncio.Task[None]] = {}

    async def of(self, domain: str) -> Grader:
        """The domain's grader. The first caller starts it; the others wait for the start."""
        grader = self._graders[domain]
        if domain not in self._starts:
            self._starts[domain] = asyncio.create_task(grader.start())
        await asyncio.shield(self._starts[domain])
        return grader

    async def close(self) -> None:
        for grader in self._graders.values():
            await grader.close()


@lru_cache(maxsize=1)
def _graders(records: str, workers: int) -> _Graders:
    return _Graders(Path(records), workers)
