"""The lab from Python: what `from pacore_lab import ...` gives, and solve, run and load as a notebook uses them."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import pacore_lab
from backends.mock import Mock
from pacore_lab import ConfigError, Model, Problem, Run, Unsupported, composed, load, opened, run, solve
from pacore_lab.commands.compare import compare
from pacore_lab.commands.regrade import regrade
from pacore_lab.commands.sweep import sweep
from pacore_lab.config.stored import regrading
from pacore_lab.grading import MathGrader
from pacore_lab.problems import JSONL
from pacore_lab.running.describing import described
from pacore_lab.running.run import execute
from strategies import AgreementStop, MajorityVote, PaCoRe
from strategies.stopping import Beta
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
    stopping = PaCoRe(AgreementStop(of=PaCoRe([4])._schedule, rule=Beta()), grader=MathGrader())
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
