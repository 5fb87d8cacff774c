"""How the parts of a run are described, and that a run built by hand is a run like any other."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.mock import Mock
from pacore_lab import ConfigError, Model, Problem, Round, Run, Sampler, Solution, load, run
from pacore_lab.commands.compare import compare
from pacore_lab.commands.regrade import regrade
from pacore_lab.commands.sweep import sweep
from pacore_lab.config.stored import regrading
from pacore_lab.grading import MathGrader
from pacore_lab.problems import JSONL
from pacore_lab.running.describing import described
from pacore_lab.running.run import execute
from strategies import MajorityVote, PaCoRe
from strategies.stopping import Beta, Share

MODEL = Model(name="m")

pytestmark = pytest.mark.usefixtures("here")


# ---- a run built by hand ----


def by_hand(out: str, **changes: Any) -> Run:
    return Run(
        **{
            "strategy": MajorityVote(k=4, grader=MathGrader()),
            "backend": Mock(model=MODEL, answers=3),
            "model": MODEL,
            "problems": JSONL(path="ten.jsonl"),
            "grader": MathGrader(),
            "out": Path(out),
            "store": Path("store.sqlite"),
            "repeats": 2,
            **changes,
        }
    )


async def test_a_run_built_by_hand_is_a_run_like_any_other() -> None:
    """It wrote a folder without settings, on which compare, regrade and sweep ended in a KeyError."""
    vote = await execute(by_hand("vote"))
    rounds = await execute(by_hand("rounds", strategy=PaCoRe([4])))
    assert [row.method for row in compare([vote, rounds]).rows if row.k is None] == ["MajorityVote", "PaCoRe"]
    settings = load(vote).settings
    grader, chosen, problems = regrading(settings, [])
    graded = await regrade(vote, grader, problems, chosen)
    assert load(vote).table(graded.stem) == load(vote).table()
    swept = sweep(vote, ["strategy=majority_vote strategy.k=4", "strategy=single"], store=Path("store.sqlite"))
    assert swept.rows[0].accuracy == load(vote).table()[-1]["accuracy"]
    before = load(vote).table()
    await execute(by_hand("vote"))  # resumes
    assert load(vote).table() == before
    with pytest.raises(ConfigError, match="a run with other settings"):
        await execute(by_hand("vote", strategy=PaCoRe([2])))


# ---- what tells two runs apart ----


def test_a_part_is_described_as_a_configuration_would() -> None:
    @dataclass(frozen=True)
    class Part:
        path: Path
        of: tuple[Any, ...]
        by: Any

    found = described(Part(Path("x"), (Beta(threshold=0.9), None), {"a": described}))
    assert found == {
        "_target_": f"{__name__}.test_a_part_is_described_as_a_configuration_would.<locals>.Part",
        "path": "x",
        "of": [{"_target_": "strategies.stopping.Beta", "threshold": 0.9}, None],
        "by": {"a": {"_target_": "hydra.utils.get_object", "path": "pacore_lab.running.describing.described"}},
    }


class Plain:
    """A strategy that is not a dataclass."""

    def __init__(self, k: int) -> None:
        self.k = k

    async def solve(self, problem: Problem, sampler: Sampler) -> Solution:
        drawn = await sampler.sample(problem.messages, self.k)
        return Solution.of(drawn[0], [Round.of(drawn)])


class Colour(Enum):
    RED = 1
    BLUE = 2


def scaled(by: int) -> Callable[[int], int]:
    return lambda number: by * number


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Plain(2), Plain(16)),
        (lambda n: n + 1, lambda n: n + 2),
        (scaled(2), scaled(3)),
        (Colour.RED, Colour.BLUE),
        (np.arange(3), np.arange(4)),
        (np.float64(0.5), np.float64(0.25)),
        ({1, 2}, {1, 3}),
        (Decimal("1"), Decimal("2")),
        (partial(max, 1), partial(max, 2)),
        (range(10**9), range(10**8)),
        (Beta, Share),
    ],
)
def test_parts_that_differ_are_described_differently(one: object, other: object) -> None:
    """Two strategies had one folder, and the second run returned the numbers of the first."""
    assert described(one) != described(other)
    assert json.loads(json.dumps(described(one))) == described(one)


def test_a_part_that_holds_itself_or_odd_things_is_described() -> None:
    mine: list[object] = [math.nan]
    mine.append(mine)
    assert described(mine) == ["nan", "..."]

    class Odd:
        def __getattr__(self, name: str) -> object:
            raise RuntimeError(name)

    assert described(Odd())["_target_"].endswith("Odd")
    assert described(n for n in ())["_target_"] == "builtins.generator"


def test_a_strategy_of_another_k_is_another_run() -> None:
    folders = [run("backend=mock", "problems=jsonl", "problems.path=ten.jsonl", strategy=Plain(k)) for k in (2, 16)]
    assert load(folders[1]).table()[-1]["ttc"] > load(folders[0]).table()[-1]["ttc"]


def test_a_function_of_a_notebook_is_known_by_its_code() -> None:
    """A cell that was changed and run again had the name, and so the folder, of what stood there before."""
    told = []
    for source in ("def score(n): return n + 1", "def score(n): return n + 2"):
        cell: dict[str, Any] = {"__name__": "__main__"}
        exec(source, cell)
        told.append(described(cell["score"]))
    assert told[0]["path"] == told[1]["path"] == "__main__.score"
    assert told[0] != told[1]
