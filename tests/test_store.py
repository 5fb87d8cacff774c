"""The store keeps what it was given, names it stably, and two processes can share it."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacore_lab.errors import StoreError
from pacore_lab.sampling.names import SampleName, digest
from pacore_lab.sampling.store import Store
from pacore_lab.types import Completion

ROOT = Path(__file__).resolve().parent.parent
PROMPT = ({"role": "user", "content": "2 + 2?"},)


def name(index: int = 0, **changes: object) -> SampleName:
    values = {"fingerprint": "f", "prompt": digest(PROMPT), "params": "{}", "seed": 0, "problem": "p", "repeat": 0}
    return SampleName(**{**values, "index": index, **changes})  # type: ignore[arg-type]


def done(content: str, **values: object) -> Completion:
    return Completion(content=content, generated_tokens=7, **values)  # type: ignore[arg-type]


async def test_what_was_put_is_there_after_reopening(tmp_path: Path) -> None:
    odd = "nul \x00, lone \ud800, \U0001f600, " + "long " * 10_000
    store = await Store.open(tmp_path / "deep" / "s.sqlite")
    await store.put(name(), PROMPT, done(odd, mean_logprob=-0.5, window_logprobs=(-0.25, -0.75)))
    await store.close()
    store = await Store.open(tmp_path / "deep" / "s.sqlite")
    row = (await store.get([name().id, "unknown"]))[name().id]
    assert row.completion == done(odd, mean_logprob=-0.5, window_logprobs=(-0.25, -0.75))
    assert row.error is None
    await store.close()


async def test_a_finished_trajectory_is_never_replaced_but_a_failed_one_is(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "s.sqlite")
    assert (await store.put(name(), PROMPT, done(""), "failed: 500")).error == "failed: 500"
    assert (await store.put(name(), PROMPT, done("first"))).completion.content == "first"
    assert (await store.put(name(), PROMPT, done("second"))).completion.content == "first"
    assert (await store.put(name(), PROMPT, done(""), "failed: 500")).completion.content == "first"
    await store.close()


async def test_order_of_arrival_is_kept(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "s.sqlite")
    for index in (2, 0, 1):
        await store.put(name(index), PROMPT, done(str(index)))
    await store.put(name(3), PROMPT, done(""), "aborted")
    seqs = await store.seqs([name(i).id for i in range(5)])
    assert sorted(seqs, key=seqs.__getitem__) == [name(i).id for i in (2, 0, 1)]
    await store.close()


def test_every_part_of_the_name_matters_and_the_engine_seed_is_free_of_the_engine() -> None:
    changes = [{}, {"fingerprint": "g"}, {"prompt": "q"}, {"params": "x"}, {"seed": 1}, {"problem": "q"}, {"repeat": 1}]
    names = [name(**change) for change in changes] + [name(index=1)]
    assert len({n.id for n in names}) == len(names)
    assert name().engine_seed == name(fingerprint="other engine").engine_seed
    assert len({n.engine_seed for n in names}) == len(names) - 1


@given(st.recursive(st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_digest_takes_any_text(value: object) -> None:
    assert len(digest(value)) == 32


@pytest.mark.parametrize("content", [b"not a database" * 100, None])
async def test_what_is_no_store_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "s.sqlite"
    if content is None:
        with sqlite3.connect(path) as foreign:
            foreign.execute("CREATE TABLE x (y)")
        foreign.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"s\.sqlite.*another") as caught:
        await Store.open(path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


async def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is a folder"):
        await Store.open(tmp_path)


async def test_a_locked_store_says_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match=rf"locked .* process {holder.pid}"):
            await Store.open(path, busy_timeout=0.2)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        store = await Store.open(path)
        assert (await store.put(name(), PROMPT, done("x"))).error is None
        await store.close()
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()  # type: ignore[union-attr]


HOLDER = """
import asyncio, sys, time
from pacore_lab.sampling.store import Store
async def main():
    store = await Store.open(sys.argv[1])
    await store._submit(lambda: store._db.execute("BEGIN IMMEDIATE"), writes=False)
    print("held", flush=True)
    time.sleep(60)
asyncio.run(main())
"""

WRITER = """
import asyncio, sys
from tests.test_store import PROMPT, done, name
from pacore_lab.sampling.store import Store
async def main():
    store = await Store.open(sys.argv[1])
    kept = await asyncio.gather(*(store.put(name(i), PROMPT, done(sys.argv[2] + "x" * 5000)) for i in range(300)))
    print(sum(row.completion.content.startswith(sys.argv[2]) for row in kept))
    await store.close()
asyncio.run(main())
"""


def test_two_processes_write_one_store_without_harm(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), mark], cwd=ROOT, stdout=subprocess.PIPE)
        for mark in "ab"
    ]
    kept = [int(writer.communicate()[0]) for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert sum(kept) == 300  # each name has one winner, and both processes were told the same one
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT count(*) FROM trajectories").fetchone() == (300,)
    db.close()


async def test_what_was_acknowledged_survives_kill_nine(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    script = WRITER.replace(
        "print(sum",
        'print("all acknowledged", flush=True); import os, signal; os.kill(os.getpid(), signal.SIGKILL); print(sum',
    )
    writer = subprocess.run([sys.executable, "-c", script, str(path), "a"], cwd=ROOT, capture_output=True, text=True)
    assert writer.stdout == "all acknowledged\n"
    assert writer.returncode == -signal.SIGKILL
    store = await Store.open(path)
    assert len(await store.get([name(i).id for i in range(300)])) == 300
    await store.close()


async def test_closed_means_closed(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "s.sqlite")
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.put(name(), PROMPT, done("x"))
    assert not [f for f in os.listdir(tmp_path) if f.endswith(("-wal", "-shm"))]
    await asyncio.sleep(0)
