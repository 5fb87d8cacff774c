"""The lab from Python: what `from pacore_lab import ...` gives, and solve, run and load as a notebook uses them."""

from __future__ import annotations

import ast
import asyncio
import gc
import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

import pacore_lab
from backends.mock import Mock
from pacore_lab import (
    ConfigError,
    Model,
    Problem,
    Round,
    Run,
    Sampler,
    Solution,
    Unsupported,
    composed,
    load,
    opened,
    run,
    solve,
)
from pacore_lab.commands.compare import compare
from pacore_lab.commands.regrade import regrade
from pacore_lab.commands.sweep import sweep
from pacore_lab.config.stored import regrading
from pacore_lab.grading import MathGrader, NoGrader
from pacore_lab.problems import JSONL
from pacore_lab.running.describing import described
from pacore_lab.running.run import execute
from strategies import AgreementStop, Fixed, MajorityVote, PaCoRe
from strategies.stopping import Beta, Share
from tests.doubles import Scripted, user
from tests.outside import ROOT, write_jsonl

MODEL = Model(name="m")
TEN = [{"question": f"{n} + {n}?", "answer": str(2 * n)} for n in range(10)]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "ten.jsonl", TEN)
    return tmp_path


# ---- what there is ----


def test_everything_public_of_the_seam_is_in_all() -> None:
    """A plug-in imported from four modules, since the package itself gave a version only."""
    listed = set(pacore_lab.__all__)
    for name in ("types", "interfaces", "errors", "votes"):
        module = import_module(f"pacore_lab.{name}")
        own = {
            each
            for each, value in vars(module).items()
            if not each.startswith("_") and getattr(value, "__module__", None) == module.__name__
        }
        assert own
        assert own <= listed, f"pacore_lab.{name} has {own - listed}"
    assert all(hasattr(pacore_lab, name) for name in listed)
    with pytest.raises(AttributeError, match="nothing"):
        _ = pacore_lab.nothing


def test_a_type_checker_sees_what_is_imported_late() -> None:
    tree = ast.parse((ROOT / "pacore_lab" / "__init__.py").read_text())
    (checked,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.name: node.module for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert seen == pacore_lab._LATER


def test_importing_it_is_quick() -> None:
    """CPU seconds, of the best of three."""
    code = "import time; t = time.process_time(); import pacore_lab; print(time.process_time() - t)"
    took = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout) for _ in range(3)
    ]
    assert min(took) < 0.3


# ---- solve ----


async def test_a_question_is_solved(here: Path) -> None:
    backend = Scripted(lambda request, n: f"<think>hm</think>\n \\boxed{{{n}}}")
    solution = await solve(PaCoRe([3, 2]), "1 + 1?", backend, model=MODEL)
    assert solution.text == "\\boxed{5}"
    assert [len(done.trajectories) for done in solution.rounds] == [3, 2, 1]
    assert solution.tokens == sum(done.tokens for done in solution.rounds) == 6 * len("<think>hm</think>\n \\boxed{0}")
    assert [path.name for path in here.iterdir()] == ["ten.jsonl"]  # nothing is written


async def test_a_store_is_sampled_once() -> None:
    texts = set()
    for _ in range(2):
        backend = Scripted(lambda request, n: f"\\boxed{{{n}}}")
        texts.add((await solve(PaCoRe([4]), user("1 + 1?"), backend, model=MODEL, store="s.sqlite")).text)
    assert texts == {"\\boxed{4}"}
    assert backend.requests == []


async def test_an_open_backend_stays_open() -> None:
    class Counted(Mock):
        starts = closes = 0

        async def start(self) -> None:
            Counted.starts += 1

        async def close(self) -> None:
            Counted.closes += 1

    backend = Counted(model=MODEL)
    async with opened(backend) as engine:
        for text in ("1 + 1?", "2 + 2?"):
            await solve(PaCoRe([2]), Problem(id=text, messages=user(text)), engine)
        assert (Counted.starts, Counted.closes) == (1, 0)
    assert Counted.closes == 1


async def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"give solve\(\.\.\., model=Model"):
        await solve(PaCoRe([2]), "1?", Scripted())
    backend = Scripted()
    backend.capabilities = type(backend.capabilities)(partial=False)
    stopping = PaCoRe(AgreementStop(of=Fixed(widths=[4]), rule=Beta()), grader=MathGrader())
    with pytest.raises(Unsupported, match="aborts trajectories"):
        await solve(stopping, "1?", backend, model=MODEL)
    assert backend.requests == []


# ---- run and load ----


def test_run_is_the_command(here: Path) -> None:
    words = ["backend=mock", "problems=jsonl", "problems.path=ten.jsonl", "strategy=pacore", "strategy/schedule=[3]"]
    folder = run(*words, repeats=2, limit=4)
    subprocess.run([sys.executable, str(ROOT / "run.py"), *words, "repeats=2", "limit=4"], cwd=here, check=True)
    assert [path.name for path in here.glob("outputs/pacore-*")] == [folder.name]
    loaded = load(folder)
    assert sum(1 for _ in loaded.lines()) == 8
    assert [row["method"] for row in loaded.table()] == [
        "single sample",
        "majority vote @3",
        loaded.versions["strategy"],
    ]
    assert [each["baseline"] for each in loaded.differences()] == ["single sample", "majority vote @3"]
    assert json.loads(json.dumps(loaded.table())) == loaded.table()
    assert list(loaded.frame()["episodes"]) == [8, 8, 8]


async def test_run_works_under_a_running_loop() -> None:
    """A notebook's: asyncio.run refuses there."""
    folder = run("problems=jsonl", "problems.path=ten.jsonl", backend="mock", limit=2, out="my runs/it's 1")
    assert folder == Path("my runs/it's 1")
    assert load(folder).table()[-1]["episodes"] == 2


def test_parts_may_be_objects() -> None:
    backend = Scripted(lambda request, n: "\\boxed{2}")
    backend.fingerprint = "mine"
    folder = run(strategy=PaCoRe([2]), backend=backend, problems=JSONL(path="ten.jsonl"), model=MODEL, out="o", limit=3)
    assert len(backend.requests) == 9
    assert load(folder).table()[-1]["method"] == "PaCoRe"
    assert composed(strategy=PaCoRe([2]), backend=backend).settings["strategy"]["schedule"] == [2]


@pytest.mark.parametrize(
    ("words", "values", "said"),
    [
        (["strateg=pacore"], {}, "did you mean strategy"),
        ([], {"repeats": {"a": 1}}, r"repeats is \{'a': 1\}; give text, a number"),
        ([], {"repeats": 0}, "repeats is 0"),
        ([], {"strategy": "nothing"}, "nothing"),
    ],
)
def test_mistakes_are_one_line(words: list[str], values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        run("backend=mock", *words, **values)
    assert "\n" not in str(refused.value)


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


@pytest.mark.parametrize("file", ["settings.json", "versions.json"])
@pytest.mark.parametrize("text", ["{}", "[]", "nonsense"])
def test_a_folder_that_lacks_its_settings_is_one_line(file: str, text: str) -> None:
    folder = run("problems=jsonl", "problems.path=ten.jsonl", backend="mock", limit=1, out="o")
    (folder / file).write_text(text)
    for read in (
        lambda: compare([folder]),
        lambda: sweep(folder, ["strategy=single"], store=Path("outputs/store.sqlite")),
    ):
        with pytest.raises(ConfigError, match=rf"^o.*{file}"):
            read()


INTERRUPTED = """
import asyncio, os, signal, threading
from pacore_lab.running.waiting import finished

async def work():
    begun.set()
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        print("closed", flush=True)

async def notebook():
    finished(work())

begun = threading.Event()
threading.Thread(target=lambda: (begun.wait(), os.kill(os.getpid(), signal.SIGINT))).start()
try:
    asyncio.new_event_loop().run_until_complete(notebook())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_an_interrupt_in_a_notebook_closes_the_engine_first() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("closed\ninterrupted\n", "")


# ---- an adversary's findings ----


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


def test_a_backend_brings_its_model() -> None:
    """The run was labelled, and sampled, as the configuration's default model."""
    backend = Mock(model=Model(name="mine", temperature=0.3, max_tokens=777))
    made = composed("problems=jsonl", "problems.path=ten.jsonl", backend=backend)
    assert (made.model, made.settings["model"]["name"]) == (backend.model, "mine")
    with pytest.raises(ConfigError, match="leave model out"):
        composed(backend=backend, model=MODEL)
    with pytest.raises(ConfigError, match="model is given twice"):
        composed("model=pacore_8b", backend=backend)


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["strategy=pacore", "strategy/schedule=[3]"], {"strategy": PaCoRe([2])}),
        (["strategy/schedule=[3]"], {"strategy": PaCoRe([2])}),
        (["strategy=single"], {"strategy": "pacore_low"}),
        (["repeats=2"], {"repeats": 1}),
        (["model.name=abc"], {"model": MODEL}),
    ],
)
def test_nothing_is_chosen_twice_in_silence(words: list[str], values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="is given twice"):
        composed("backend=mock", *words, **values)


@pytest.mark.parametrize(
    "text",
    ["1e5", "true", "1_000", "42", "null", "a b\\\\", "tail\\", "\\frac{1}{2}", "$x$", "it's", "a, b"],
)
def test_text_arrives_as_it_is(text: str) -> None:
    """Numbers, booleans and the environment were read out of it."""
    made = composed("backend=mock", "problems=ask", **{"problems.question": text})
    assert made.problems.load()[0].messages[0]["content"] == text
    assert made.settings["problems"]["question"] == text


@pytest.mark.parametrize(
    ("words", "values", "said"),
    [
        (["+repaets=4"], {}, "did you mean repeats"),
        ([], {"repaets": 4}, "repaets"),
        ([], {"strategy": PaCoRe}, r"strategy is the class PaCoRe; give an object"),
        ([], {"backend": None}, "backend is None, which is not a backend"),
        ([], {"problems": [1]}, r"problems is \[1\], which is not a problem: it has no method load"),
        ([], {"model": "nothing"}, "nothing"),
        ([], {"model": 3}, "model is 3; give pacore_lab.Model"),
        ([], {"problems.path": "${oc.env:HOME}"}, r"problems.path holds '\$\{'.*give problems as an object"),
        ([["strategy=single"]], {}, "is not a word of the command line"),
        (["strategy=majority_vote", "strategy.prompt.path=x"], {}, "the strategy chosen has no prompt to choose"),
    ],
)
def test_natural_mistakes_are_one_line(words: list[Any], values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        run(*words, **values)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "values", "said"),
    [
        ((PaCoRe, "1?", Mock(model=MODEL)), {}, "is the class PaCoRe"),
        (("pacore", "1?", Mock(model=MODEL)), {}, "is not a strategy"),
        ((PaCoRe([2]), 5, Mock(model=MODEL)), {}, "the problem is 5; give a question"),
        ((PaCoRe([2]), "1?", Mock), {}, "is the class Mock"),
        ((PaCoRe([2]), "1?", Mock(model=MODEL)), {"seed": 2**64}, "seed is"),
    ],
)
async def test_natural_mistakes_of_solve_are_one_line(
    arguments: tuple[Any, ...], values: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        await solve(*arguments, **values)


async def test_overlapping_solves_share_one_backend() -> None:
    """Each started and closed it under the others: closed sessions, engines declared dead."""
    calls: list[str] = []

    class Strict(Scripted):
        async def start(self) -> None:
            assert calls[-1:] != ["start"]
            calls.append("start")

        async def close(self) -> None:
            calls.append("close")

    backend = Strict(lambda request, n: "\\boxed{1}")
    asked = (solve(PaCoRe([2]), f"{n}?", backend, model=MODEL) for n in range(5))
    assert [solution.text for solution in await asyncio.gather(*asked)] == ["\\boxed{1}"] * 5
    assert calls == ["start", "close"]
    await solve(PaCoRe([2]), "again?", backend, model=MODEL)
    assert calls == ["start", "close"] * 2


async def test_a_strategys_grader_is_started_and_closed() -> None:
    """Its workers outlived the call."""
    calls: list[str] = []

    class Noted(NoGrader):
        async def start(self) -> None:
            calls.append("start")

        async def close(self) -> None:
            calls.append("close")

    vote = PaCoRe(AgreementStop(of=Fixed(widths=[4]), rule=Beta(), batch=2), grader=Noted())
    await solve(vote, "1?", Scripted(lambda request, n: "\\boxed{1}"), model=MODEL)
    assert calls == ["start", "close"]


def test_hydra_may_be_in_use_and_is_afterwards(here: Path) -> None:
    (here / "conf").mkdir()
    (here / "conf" / "own.yaml").write_text("mine: 1\n")
    with initialize_config_dir(str(here / "conf"), version_base="1.3"):
        run("problems=jsonl", "problems.path=ten.jsonl", backend="mock", limit=1, out="o")
        assert compose("own").mine == 1
    with ThreadPoolExecutor(4) as pool:
        made = pool.map(lambda n: composed("backend=mock", repeats=n).repeats, range(1, 9))
    assert list(made) == list(range(1, 9))


def test_a_callers_signal_handler_is_there_again() -> None:
    before = signal.getsignal(signal.SIGTERM)
    mine = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        ours = signal.getsignal(signal.SIGTERM)
        run("problems=jsonl", "problems.path=ten.jsonl", backend="mock", limit=1, out="o")
        assert signal.getsignal(signal.SIGTERM) is ours
        assert gc.get_freeze_count() == 0
    finally:
        signal.signal(signal.SIGTERM, before or mine)


def test_only_a_regradings_name_names_grades() -> None:
    folder = run("problems=jsonl", "problems.path=ten.jsonl", backend="mock", limit=1, out="o")
    (folder / "grades").mkdir()
    (folder / "grades" / "MathGrader-1.disagreements.jsonl").write_text("")
    with pytest.raises(ConfigError, match="has no grades"):
        load(folder).table("MathGrader-1.disagreements")
