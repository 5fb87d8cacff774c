"""A second start of every engine, with YaRN; then its death in the middle of a request, and what is left of it."""

from __future__ import annotations

import asyncio
import shutil
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean

import psutil
import pytest

from backends._checkpoint import load
from pacore_lab.errors import BackendError, EngineDead, TransientError
from pacore_lab.interfaces import Backend
from pacore_lab.types import ChatMessage
from tests.engines.asking import asking, encodes_back, logprobs_of, rambling
from tests.engines.conftest import CHECKPOINT, CONTEXT, ENGINES, model

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.usefixtures("logs_of_its_own")]
# Of more digits than were learned, so that no token of the answer is sure whatever becomes of the positions.
LONG_SUM: ChatMessage = {"role": "user", "content": "What is 234517 + 451323? Put the final answer in \\boxed{}."}


def children() -> set[psutil.Process]:
    return {child for child in psutil.Process().children(recursive=True) if "resource_tracker" not in _line(child)}


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def alive(processes: set[psutil.Process]) -> list[str]:
    return [_line(p) for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


async def test_yarn_as_in_transformers_then_a_dead_engine_is_one_line(kind: str) -> None:
    """YaRN leaves the attention temperature alone, in whatever words; SIGKILL, as for want of memory."""
    as_trained = model(path=str(CHECKPOINT))
    which = replace(as_trained, yarn_factor=16.0, yarn_original=CONTEXT // 16)
    before = children()
    backend = ENGINES[kind](which)
    await backend.start()
    ours = children() - before
    try:
        assert backend.capabilities.context_length == CONTEXT
        plain, stretched = (load(each, CHECKPOINT, "cpu")[0] for each in (as_trained, which))
        drawn = [
            await backend.complete(asking((LONG_SUM,), seed=seed, logprobs=True, temperature=1.0, max_tokens=24))
            for seed in range(16)
        ]
        compared = [done for done in drawn if encodes_back(done)]
        assert len(compared) >= 3
        for done in compared:
            expected = mean(logprobs_of((LONG_SUM,), done, stretched))
            assert done.mean_logprob == pytest.approx(expected, abs=2e-3)
            assert abs(expected - mean(logprobs_of((LONG_SUM,), done, plain))) > 2e-2, "this test shows nothing"
        if kind != "hf":
            await _kill_in_the_middle(backend, ours)
    finally:
        await backend.close()
        await backend.close()
    await _gone(ours)


async def _kill_in_the_middle(backend: Backend, ours: set[psutil.Process]) -> None:
    calls = [asyncio.create_task(backend.complete(rambling(seed, max_tokens=4000))) for seed in range(300)]
    await asyncio.sleep(0.5)
    running = [call for call in calls if not call.done()]
    assert running
    max(ours, key=lambda process: process.memory_info().rss).kill()  # the one that holds the weights
    await asyncio.wait(running, timeout=60)
    failures = [call.exception() for call in running if call.done()]
    assert len(failures) == len(running), "some still wait"
    # Some were answered before; a lost connection is tried again, and then it is known that the server is dead.
    assert all(isinstance(failure, EngineDead | TransientError | None) for failure in failures)
    dead = None
    async with asyncio.timeout(30):
        while dead is None:
            try:
                await backend.complete(asking())
            except TransientError:
                continue
            except EngineDead as error:
                dead = error
    assert "\n" not in str(dead)


async def test_a_broken_checkpoint_is_one_line(kind: str, tmp_path: Path) -> None:
    """The engine's own reason, which it may only have told its log, and nothing left running."""
    shutil.copytree(CHECKPOINT, tmp_path / "cut")
    with (tmp_path / "cut" / "model.safetensors").open("r+b") as weights:
        weights.truncate(100_000)
    before = children()
    backend = ENGINES[kind](model(path=str(tmp_path / "cut")))
    with pytest.raises(BackendError) as caught:
        await backend.start()
    await backend.close()
    assert "\n" not in str(caught.value)
    assert "safetensor" in str(caught.value).lower()
    await _gone(children() - before)


async def _gone(ours: set[psutil.Process]) -> None:
    deadline = time.monotonic() + 15
    while alive(ours) and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    assert not alive(ours)
