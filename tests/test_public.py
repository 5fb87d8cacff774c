"""The lab from Python: what `from pacore_lab import ...` gives, and solve, run and load as a notebook uses them."""

from __future__ import annotations

import ast
import asyncio
import gc
import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

import pacore_lab
from backends.mock import Mock
from pacore_lab import ConfigError, Model, Problem, Unsupported, composed, load, opened, run, solve
from pacore_lab.commands.compare import compare
from pacore_lab.commands.sweep import sweep
from pacore_lab.grading import MathGrader, NoGrader
from strategies import AgreementStop, Fixed, PaCoRe
from strategies.stopping import Beta
from tests.doubles import Scripted, user
from tests.outside import ROOT

MODEL = Model(name="m")

pytestmark = pytest.mark.usefixtures("here")


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


async def test_who_comes_while_it_closes_starts_it_again() -> None:
    calls: list[str] = []
    closing, close = asyncio.Event(), asyncio.Event()

    class Slow(Scripted):
        async def start(self) -> None:
            calls.append("start")

        async def close(self) -> None:
            closing.set()
            await close.wait()
            calls.append("close")

    backend = Slow(lambda request, n: "\\boxed{1}")
    first = asyncio.create_task(solve(PaCoRe([2]), "1?", backend, model=MODEL))
    await closing.wait()
    second = asyncio.create_task(solve(PaCoRe([2]), "2?", backend, model=MODEL))
    await asyncio.sleep(0)
    close.set()
    assert [(await each).text for each in (first, second)] == ["\\boxed{1}"] * 2
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


def test_only_a_regradings_name_names_grades() -> None:
    folder = run("problems=jsonl", "problems.path=ten.jsonl", backend="mock", limit=1, out="o")
    (folder / "grades").mkdir()
    (folder / "grades" / "MathGrader-1.disagreements.jsonl").write_text("")
    with pytest.raises(ConfigError, match="has no grades"):
        load(folder).table("MathGrader-1.disagreements")
