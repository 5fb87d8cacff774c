"""Killed at any moment, started again: nothing finished is sampled twice, and the results are those of a quiet run.

PACORE_KILLS=100 kills a hundred times instead of eight; PACORE_SEED picks the moments.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import re
import signal
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from pacore_lab.interfaces import Request
from pacore_lab.sampling.names import SampleName
from tests.doubles import Scripted, dispatcher, episode, user
from tests.outside import (
    begin,
    below,
    finished_in,
    invoke,
    lines_of,
    recording,
    results_of,
    serving,
    spawn,
    write_jsonl,
)
from tests.servers import Payload, default_text
from tests.waiting import until

KILLS = int(os.environ.get("PACORE_KILLS", "8"))
CONCURRENCY = 8


def comparable(row: dict[str, Any]) -> dict[str, Any]:
    """A line of results.jsonl without what says when and by whom its trajectories were sampled."""
    tokens = {key: value for key, value in row["tokens"].items() if key not in ("sampled", "reused")}
    facts = [[{**fact, "reused": None} for fact in done] for done in row["trajectories"]]
    return {**row, "tokens": tokens, "trajectories": facts, "seconds": None}


def outcome(out: Path) -> dict[tuple[str, int], dict[str, Any]]:
    return {key: comparable(row) for key, row in results_of(out).items()}


def seeds_in(store: Path) -> set[int]:
    """The engine seeds of all finished trajectories of a store."""
    names = [{("index" if key == "idx" else key): row[key] for key in row if key != "id"} for row in finished_in(store)]
    return {SampleName(**name).engine_seed for name in names}


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def settled(url: str) -> None:
    """What a dead process had sent is in the record once the server has answered what was sent later."""
    for _ in range(2):
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(f"{url}/models", timeout=30).close()


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = [{"id": f"p{i}", "question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(6)]
    return write_jsonl(tmp_path_factory.mktemp("problems") / "p.jsonl", records)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server in another process and the file with every payload it was sent."""
    record = tmp_path_factory.mktemp("server") / "asked.jsonl"
    with recording(record, "--delay", "0.05") as url:
        yield url, record


def command(url: str, problems: Path, folder: Path, *args: str) -> list[str]:
    common = ["backend=openai", f"backend.base_url={url}", "model.name=m", f"concurrency={CONCURRENCY}"]
    common += ["backend.probe=false"]  # what the server is asked is counted
    files = ["problems=jsonl", f"problems.path={problems}", f"out={folder / 'out'}", f"store={folder / 's.sqlite'}"]
    return [*common, *files, *args]


CASES = {
    "low": ["strategy=pacore_low", "repeats=2"],
    "two rounds": ["strategy=pacore", "strategy.schedule.widths=[8,2]"],
    "pool": ["strategy=pacore", "strategy.schedule.widths=[3]", "repeats=4", "pool=6"],
}


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path, server: tuple[str, Path], problems: Path) -> None:
    """Finished trajectories were sampled again, or a resumed run answered differently."""
    url, record = server
    seed = int(os.environ.get("PACORE_SEED", time.time_ns() % 10**6))
    dice = random.Random(seed)
    log = tmp_path / "log"

    @functools.cache
    def quiet(name: str) -> tuple[dict[tuple[str, int], dict[str, Any]], float]:
        """What an undisturbed run gives, and its seconds."""
        began = time.monotonic()
        process = begin(*command(url, problems, tmp_path / name, *CASES[name]), cwd=tmp_path)
        process.join(60)
        assert process.exitcode == 0, log.read_text()
        return outcome(tmp_path / name / "out"), time.monotonic() - began

    kills: Counter[str] = Counter()
    attempt = 0
    while kills.total() < KILLS:
        attempt += 1
        name = dice.choice(list(CASES))
        whole, lasts = quiet(name)
        folder = tmp_path / f"{name} {attempt}"
        args = command(url, problems, folder, *CASES[name])
        story = [f"PACORE_SEED={seed}, attempt {attempt}: {name}"]
        start, killed, finished = len(lines_of(record)), 0, False
        while not finished:
            done, asked = seeds_in(folder / "s.sqlite"), len(lines_of(record))
            with_what = dice.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
            process = begin(*args, cwd=tmp_path)
            if kills.total() >= KILLS:
                process.join(60)
            elif dice.random() < 0.3:  # any moment: starting, sampling, concluding
                process.join(dice.uniform(0.2, lasts))
            else:  # while it samples
                enough = asked + dice.randrange(1, 30)
                wait_for(lambda p=process, n=enough: p.exitcode is not None or len(lines_of(record)) >= n)
                process.join(dice.uniform(0, 0.1))
            if process.exitcode is None:
                assert process.pid is not None
                sampling, said = len(lines_of(record)) > asked, log.stat().st_size if log.exists() else 0
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    os.kill(process.pid, with_what)
                process.join(20)
                story.append(f"{with_what.name} -> {process.exitcode}")
                last_words = log.read_bytes()[said:].decode() if log.exists() else ""
                assert process.exitcode is not None, (story, last_words)
                if sampling:  # before that, Hydra may turn an interrupt into an error of its own
                    ended = -9 if with_what == signal.SIGKILL else 130
                    assert process.exitcode in (ended, 0), (story, last_words)  # 0: it was about to end
                    assert "Traceback" not in last_words, (story, last_words)
                kills[f"{with_what.name} {'while sampling' if sampling else 'before or after'}"] += 1
                killed += 1
            settled(url)
            again = done & {payload["seed"] for payload in lines_of(record)[asked:]}
            assert not again, (story, "finished, yet sampled again", again)
            finished = process.exitcode == 0
        assert outcome(folder / "out") == whole, story
        times = Counter(payload["seed"] for payload in lines_of(record)[start:])
        assert set(times) == seeds_in(folder / "s.sqlite"), story
        assert times.total() <= len(times) + killed * CONCURRENCY, story
    print(f"kills: {dict(kills)} in {attempt} runs, PACORE_SEED={seed}")


def test_a_true_process_killed_while_it_samples(tmp_path: Path, server: tuple[str, Path], problems: Path) -> None:
    """As a user does it: `python run.py`, killed; again, Ctrl-C for its whole process group; once more to the end."""
    url, record = server
    args = command(url, problems, tmp_path, "strategy=pacore", "strategy.schedule.widths=[16]")
    for number in (signal.SIGKILL, signal.SIGINT):
        before, done = len(lines_of(record)), seeds_in(tmp_path / "s.sqlite")
        process = spawn(*args, cwd=tmp_path, start_new_session=True)
        wait_for(lambda before=before: len(lines_of(record)) >= before + 20)
        os.killpg(process.pid, number)
        _, err = process.communicate(timeout=20)
        assert len(seeds_in(tmp_path / "s.sqlite") - done) >= 20 - 2 * CONCURRENCY
        assert not done & {payload["seed"] for payload in lines_of(record)[before:]}
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted; what was sampled is stored, the same command resumes"
    assert "Traceback" not in err
    assert invoke(*args).code == 0
    assert len(results_of(tmp_path / "out")) == 6


def test_a_cut_last_line_is_done_again(tmp_path: Path, server: tuple[str, Path], problems: Path) -> None:
    """Half a line of results.jsonl, as a kill leaves it, at several places; the store knows all: nobody is asked."""
    url, record = server
    args = command(url, problems, tmp_path, "strategy=pacore_low")
    assert invoke(*args).code == 0
    whole, asked = outcome(tmp_path / "out"), len(lines_of(record))
    results = tmp_path / "out" / "results.jsonl"
    text = results.read_bytes()
    last = text.rindex(b"\n", 0, -1) + 1
    for cut in ((last + len(text)) // 2, len(text) - 2, len(text) - 1):
        results.write_bytes(text[:cut])
        assert invoke(*args).code == 0
        assert outcome(tmp_path / "out") == whole
    assert len(lines_of(record)) == asked


def test_a_folder_in_use_and_a_folder_of_another_run(tmp_path: Path, server: tuple[str, Path], problems: Path) -> None:
    """Two processes wrote one results.jsonl; a run with other settings was mixed into it."""
    url, _ = server
    args = command(url, problems, tmp_path, "strategy=majority_vote", "strategy.k=40")
    process = begin(*args, cwd=tmp_path)
    wait_for((tmp_path / "out" / "versions.json").exists)
    second = invoke(*args)
    assert second.code != 0
    assert second.err.count("\n") == 1
    assert f"process {process.pid} " in second.err
    process.kill()
    process.join(10)
    for other in ("seed=1", "strategy.k=4", "repeats=2", "model.temperature=0.5", "limit=2"):
        before = {name: (tmp_path / name).stat().st_size for name in below(tmp_path)}
        refused = invoke(*args, other)
        assert refused.code != 0
        assert refused.err.startswith("error: out=")
        assert refused.err.count("\n") == 1
        assert other.partition("=")[0].partition(".")[0] in refused.err
        assert {name: (tmp_path / name).stat().st_size for name in below(tmp_path)} == before


def test_failed_episodes_are_tried_again(tmp_path: Path, problems: Path) -> None:
    """A last round that the server refused for some problems: their lines say so, and the same command mends them."""
    refusing = True

    def reply(payload: Payload, n: int) -> web.Response | str:
        text = payload["messages"][-1]["content"]
        if refusing and "Reference 1" in text and re.search(r"What is [0-3] ", text):
            return web.json_response({"error": {"message": "no tokens left"}}, status=400)
        return default_text(payload)

    with serving(reply) as server:
        args = command(server.base_url, problems, tmp_path, "strategy=pacore_low")
        first = invoke(*args)
        assert first.code == 0
        assert "no tokens left" in first.out
        rows = results_of(tmp_path / "out")
        failed = {name for (name, _), row in rows.items() if row["error"]}
        assert failed == {"p0", "p1", "p2", "p3"}
        assert all("no tokens left" in rows[name, 0]["error"] for name in failed)
        refusing, asked = False, len(server.requests)
        assert invoke(*args).code == 0
        assert len(server.requests) == asked + 4, "only the four last rounds were missing"
        mended = results_of(tmp_path / "out")
        assert not any(row["error"] for row in mended.values())
        assert invoke(*args[:-1], "strategy=pacore_low", f"out={tmp_path / 'quiet'}").code == 0
        quiet = outcome(tmp_path / "quiet")
        assert {key: comparable(row) for key, row in mended.items()} == quiet


def test_a_corrected_problem_is_done_again(tmp_path: Path) -> None:
    """The user mends a question in problems.path and runs the same command: the old answer was kept as the new one's.
    Refusing in one line would do as well."""
    with serving(lambda payload, n: default_text(payload)) as server:
        file = write_jsonl(tmp_path / "p.jsonl", [{"id": "a", "question": "1 + 2?", "answer": "3"}])
        args = command(server.base_url, file, tmp_path, "strategy=single")
        assert invoke(*args).code == 0
        write_jsonl(file, [{"id": "a", "question": "1 + 20?", "answer": "21"}])
        again = invoke(*args)
    if again.code == 0:
        assert results_of(tmp_path / "out")["a", 0]["problem"] == [{"role": "user", "content": "1 + 20?"}]
    else:
        assert again.err.startswith("error: out=")


async def test_cancelled_while_it_cleans_up(tmp_path: Path) -> None:
    """A dying engine fails one episode; the group then cancels others that are cleaning up from the same death. Their
    requests stayed in the engine, and each failure came out as a traceback ("exception was never retrieved")."""

    async def never(request: Request, n: int) -> str:
        await asyncio.Event().wait()
        return ""

    backend = Scripted(never)
    async with dispatcher(backend, tmp_path) as dispatch:
        task = asyncio.create_task(episode(dispatch).sample(user("q"), 4))
        await until(lambda: backend.running == 4)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: backend.running == 0)
