"""Runs the command from the outside (in this process, or in one that can be killed) and reads what it left."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import json
import multiprocessing
import os
import runpy
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

from hydra.core.global_hydra import GlobalHydra

from tests.servers import RecordingServer, Reply

ROOT = Path(__file__).resolve().parent.parent
RUN = ROOT / "run.py"
HERE = ["backend=mock", "out=o", "store=s.sqlite"]
_DRAWING = ["matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg"]


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


def invoke(*args: str) -> Outcome:
    """`python run.py ARGS` in this process and working directory: run.py is executed as `__main__`, imports stay."""
    GlobalHydra.instance().clear()
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    argv = mock.patch.object(sys, "argv", [str(RUN), *args])
    with argv, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_path(str(RUN), run_name="__main__")
        except SystemExit as exit_:
            code = exit_.code or 0
    return Outcome(code, out.getvalue(), err.getvalue())


def spawn(*args: str, cwd: Path, **kwargs: Any) -> subprocess.Popen[str]:
    """A true `python run.py ARGS`, its stdout and stderr in pipes.

    It hears Ctrl-C even where these tests do not: a shell starts its background jobs deaf to it, and that is inherited.
    """
    return subprocess.Popen(
        [sys.executable, str(RUN), *args],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        **kwargs,
    )


def _life(args: list[str], cwd: str, log: str) -> None:
    """One life of the command, in a forked process."""
    os.setsid()
    os.chdir(cwd)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = [str(RUN), *args]
    runpy.run_path(str(RUN), run_name="__main__")


def begin(*args: str, cwd: Path) -> BaseProcess:
    """`python run.py ARGS` without paying for its imports each time, as killable as any process; output in cwd/log."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [__name__, "pacore_lab.config.build", "backends.openai", "strategies.pacore", *_DRAWING]
    )
    process = context.Process(target=_life, args=(args, str(cwd), str(cwd / "log")))
    process.start()
    return process


def lines_of(path: Path) -> list[dict[str, Any]]:
    """A JSON-lines file."""
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]


def write_jsonl(path: Path, records: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def results_of(out: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """results.jsonl by (request_id, repeat); a pair that occurs twice is an error."""
    rows = lines_of(out / "results.jsonl")
    found = {(row["request_id"], row["repeat"]): row for row in rows}
    assert len(found) == len(rows), "an episode was written twice"
    return found


@contextlib.contextmanager
def recording(record: Path, *options: str) -> Iterator[str]:
    """A recording server in a process of its own; gives its base_url."""
    command = [sys.executable, "-m", "tests.servers", "--record", str(record), *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


@contextlib.contextmanager
def serving(reply: Reply, **options: Any) -> Iterator[RecordingServer]:
    """A recording server in a thread of this process, for commands that run here (`invoke`)."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = RecordingServer(reply=reply, **options)
    try:
        asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(10)
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.__aexit__(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def finished_in(store: Path) -> list[dict[str, Any]]:
    """The rows of finished trajectories in a store, read without the lab's own code."""
    if not store.exists():
        return []
    with contextlib.closing(sqlite3.connect(store)) as database:
        database.row_factory = sqlite3.Row
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'trajectories'").fetchone():
            return []
        columns = "id, fingerprint, prompt, params, seed, problem, repeat, idx"
        return [dict(row) for row in database.execute(f"SELECT {columns} FROM trajectories WHERE error IS NULL")]


def below(folder: Path) -> list[str]:
    """Everything in a folder, as relative paths."""
    return sorted(os.path.relpath(path, folder) for path in folder.rglob("*"))


def one_line(said: Outcome, fragment: str) -> None:
    assert said.code != 0
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1, said.err
    assert fragment in said.err
    assert "Traceback" not in said.err
    assert said.out == ""
