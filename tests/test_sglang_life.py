"""SGLang's engine as a child process, with a stand-in for sglang: how it starts, dies and is closed."""

from __future__ import annotations

import ast
import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from pacore_lab.errors import BackendError, EngineDead
from tests.sglang_stand_in import alive, asking, backend, installed, notes, running
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("logs_of_its_own")


@pytest.fixture
def stand_in(tmp_path: Path) -> dict[str, str]:
    return installed(tmp_path)


@pytest.mark.parametrize(
    ("fake", "options", "line"),
    [
        ("fails", {}, r"SGLang did not start: ValueError: no such \(log: /.*\)"),
        (
            "slow",
            {"start_timeout": 2},
            r"SGLang was not ready after 2 s \(backend.start_timeout\): loading \(log: .*\)",
        ),
        (
            "small",
            {},
            r"SGLang's cache holds 100 tokens, fewer than one trajectory of 4096; lower model.context_length .*",
        ),
        (
            "",
            {"engine_args": {"foo": 1}},
            r"SGLang did not start: sglang 9.9 has no argument foo \(backend.engine_args\).*",
        ),
    ],
)
async def test_a_failed_start_is_one_line_and_leaves_nothing(
    stand_in: dict[str, str], fake: str, options: dict[str, Any], line: str
) -> None:
    made = backend(stand_in, fake, **options)
    with pytest.raises(BackendError, match=f"^{line}$"):
        await made.start()
    await made.close()
    if fake:
        assert not any(alive(pid) for pid in notes(stand_in, "pid") + notes(stand_in, "helper"))


async def test_a_python_without_sglang() -> None:
    with pytest.raises(
        BackendError, match=r"^SGLang did not start: sglang cannot be imported.*set backend\.python to an"
    ):
        await backend({}).start()
    with pytest.raises(BackendError, match=r"^backend\.python=/nowhere: there is no Python"):
        await backend({}, python="/nowhere").start()


async def test_an_interrupted_start_leaves_nothing(stand_in: dict[str, str]) -> None:
    made = backend(stand_in, "slow")
    start = asyncio.create_task(made.start())
    await until(lambda: Path(stand_in["NOTES"]).exists() and notes(stand_in, "helper"))
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not any(alive(pid) for pid in notes(stand_in, "pid") + notes(stand_in, "helper"))


async def test_ctrl_c_in_the_terminal_is_ours_alone(stand_in: dict[str, str]) -> None:
    async with running(stand_in):
        (pid,) = notes(stand_in, "pid")
        assert os.getsid(pid) != os.getsid(0)
        assert os.getpgid(pid) != os.getpgid(0)


async def test_the_engines_death_reaches_all_who_wait(stand_in: dict[str, str]) -> None:
    made = backend(stand_in)
    await made.start()
    calls = [asyncio.create_task(made.complete(asking(seed=3000))) for _ in range(20)]
    await until(lambda: len(notes(stand_in, "asked")) == 20)
    with pytest.raises(EngineDead, match=r"^SGLang's engine died: the sky fell \(log: [^\n]*\)$"):
        await made.complete(asking(seed=666))
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, EngineDead) for result in results)
    with pytest.raises(EngineDead, match="the sky fell"):
        await made.complete(asking())
    await made.close()
    assert not any(alive(pid) for pid in notes(stand_in, "helper"))


async def test_killing_the_engine_is_not_the_end_of_us(stand_in: dict[str, str]) -> None:
    async with running(stand_in) as made:
        call = asyncio.create_task(made.complete(asking(seed=3000)))
        await until(lambda: notes(stand_in, "asked"))
        os.kill(notes(stand_in, "pid")[0], signal.SIGKILL)
        with pytest.raises(EngineDead, match=r"^SGLang's engine died: it said nothing, exit code 137"):
            await call


async def test_close_ends_everything_and_may_be_repeated(stand_in: dict[str, str]) -> None:
    made = backend(stand_in)
    await made.close()
    with pytest.raises(EngineDead, match="not running"):
        await made.complete(asking())
    await made.start()
    call = asyncio.create_task(made.complete(asking(seed=3000)))
    await until(lambda: notes(stand_in, "asked"))
    await made.close()
    with pytest.raises(EngineDead, match="closed"):
        await call
    await made.close()
    assert not any(alive(pid) for pid in notes(stand_in, "pid") + notes(stand_in, "helper"))


def test_the_child_needs_nothing_but_sglang() -> None:
    """It runs in environments that have no lab."""
    program = Path(__file__).parents[1] / "backends" / "_sglang_child.py"
    found = set()
    for node in ast.walk(ast.parse(program.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).split(".")[0])
    assert found <= set(sys.stdlib_module_names) | {"sglang"}
