"""Programs that run beside the lab: started, stopped with all they started, and why they failed, in one line."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backends._child import Child, interpreter, root_cause
from pacore_lab.errors import BackendError
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("logs_of_its_own")
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(helper.pid, flush=True)
time.sleep(600)
"""


def gone(pid: int, seconds: float = 0.01) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


async def said(log: Path) -> str:
    async with asyncio.timeout(10):
        while not log.read_text().endswith("\n"):
            await asyncio.sleep(0.01)
    return log.read_text()


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


async def test_the_exit_code_and_the_last_words() -> None:
    child = await Child.start(
        "t", python("import os; print(os.environ['A'] * 2); raise SystemExit(3)"), env={"A": "hi"}
    )
    assert await child.wait() == 3
    assert child.ended
    assert child.reason("m") == f"hihi (log: {child.log})"
    await child.stop()
    await child.stop()
    child.discard_log()
    assert not child.log.parent.exists()


async def test_silence_is_told_with_the_signal() -> None:
    child = await Child.start("t", python("import os; os.kill(os.getpid(), 9)"), env={})
    assert await child.wait() == 128 + signal.SIGKILL
    assert "it said nothing, exit code 137 (killed, perhaps for want of memory)" in child.reason("m")


async def test_a_program_that_does_not_exist() -> None:
    child = await Child.start("t", ["/nowhere/python"], env={})
    assert await child.wait() == 127
    assert child.reason("m").startswith("/nowhere/python cannot be started: No such file or directory")


async def test_stop_leaves_nothing_even_of_the_stubborn() -> None:
    """A helper in a session of its own survives its parent and a kill of the group."""
    child = await Child.start("t", python(STUBBORN), env={}, seconds=0.2)
    helper = int(await said(child.log))
    await child.stop()
    assert gone(helper)


async def test_a_program_that_ends_takes_its_helpers_along() -> None:
    code = STUBBORN.replace("time.sleep(600)\n", "").replace("signal.signal", "_ = ")
    child = await Child.start("t", python(code), env={})
    assert await child.wait() == 0
    assert gone(int(child.log.read_text()))


async def test_sigterm_comes_first() -> None:
    code = "import signal, time\ntry:\n print('up', flush=True)\n signal.sigwait({15})\nfinally: print('tidy')"
    child = await Child.start("t", python("import signal; signal.pthread_sigmask(0, {15})\n" + code), env={})
    await said(child.log)
    await child.stop()
    assert child.log.read_text() == "up\ntidy\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_the_lab(number: int, tmp_path: Path) -> None:
    """A killed lab runs no clean-up, and an engine that stays would keep the GPU's memory."""
    lab = (
        "import asyncio, sys\nfrom backends._child import Child\n"
        "async def main():\n"
        f" child = await Child.start('t', [sys.executable, '-c', {STUBBORN!r}], env={{}}, seconds=0.2)\n"
        " print(child.log, flush=True)\n await asyncio.sleep(600)\n"
        "asyncio.run(main())"
    )
    with subprocess.Popen(python(lab), stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as process:
        assert process.stdout is not None
        log = Path(process.stdout.readline().strip())
        helper = int(asyncio.run(said(log)))
        process.send_signal(number)
    assert gone(helper, 10)
    asyncio.run(until(lambda: not log.parent.exists()))


def test_which_python(tmp_path: Path) -> None:
    assert interpreter(None) == sys.executable
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    assert interpreter(str(tmp_path)) == interpreter(str(tmp_path / "bin" / "python")) == f"{tmp_path}/bin/python"
    with pytest.raises(BackendError, match=r"^backend\.python=.*: there is no Python at .*/missing"):
        interpreter(str(tmp_path / "missing"))


VLLM = """\
\x1b[0;36m(APIServer pid=1)\x1b[0;0m INFO 07-31 12:00:00 [utils.py:233] non-default args: {'model': 'x'}
(EngineCore_DP0 pid=2) ERROR 07-31 12:00:09 [core.py:866] EngineCore failed to start.
(EngineCore_DP0 pid=2) ERROR 07-31 12:00:09 [core.py:866] Traceback (most recent call last):
(EngineCore_DP0 pid=2) ERROR 07-31 12:00:09 [core.py:866]   File "core.py", line 857, in run_engine_core
(EngineCore_DP0 pid=2) ERROR 07-31 12:00:09 [core.py:866] {reason}
(EngineCore_DP0 pid=2) Process EngineCore_DP0:
(APIServer pid=1) Traceback (most recent call last):
(APIServer pid=1)   File "api_server.py", line 1
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""
SGLANG = """\
[2026-07-31 12:00:00] Ignore import error when loading sglang.srt.models.x: No module named 'torchaudio'
[2026-07-31 12:00:01 TP0] Scheduler hit an exception: Traceback (most recent call last):
  File "scheduler.py", line 1, in run_scheduler_process
{reason}

[2026-07-31 12:00:02] Received sigquit from a child process. It usually means the child failed.
"""
CHAINED = """\
Traceback (most recent call last):
EOFError

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
RuntimeError: Rank 0 scheduler died during initialization (exit code: -9). A common cause is the OS OOM killer.
"""
PYDANTIC = """\
Traceback (most recent call last):
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, User-specified max_model_len (9) is greater than the derived one [type=value_error]
    For further information visit https://errors.pydantic.dev
INFO: bye
"""


@pytest.mark.parametrize(
    ("log", "line"),
    [
        (VLLM.replace("{reason}", "ValueError: no such dtype"), "ValueError: no such dtype"),
        (
            VLLM.replace("{reason}", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20 GiB."),
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20 GiB."
            "; lower backend.gpu_memory_utilization or model.context_length",
        ),
        (
            VLLM.replace("{reason}", "ValueError: To serve one request 8 GiB KV cache is needed"),
            "ValueError: To serve one request 8 GiB KV cache is needed"
            "; lower model.context_length or raise backend.gpu_memory_utilization",
        ),
        (SGLANG.replace("{reason}", "KeyError: 'x'"), "KeyError: 'x'"),
        (
            CHAINED,
            "RuntimeError: Rank 0 scheduler died during initialization (exit code: -9). A common cause is the OS OOM "
            "killer.; lower backend.gpu_memory_utilization or model.context_length",
        ),
        (
            PYDANTIC,
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig Value error, "
            "User-specified max_model_len (9) is greater than the derived one [type=value_error] For further "
            "information visit https://errors.pydantic.dev",
        ),
        ("usage: x [-h]\nx.py: error: unrecognized arguments: --y\n", "x.py: error: unrecognized arguments: --y"),
        ("/v/bin/python: No module named sglang\n", "/v/bin/python: No module named sglang"),
        (SGLANG.partition("\n")[0] + "\nlast \x07words\n\n", "last words"),
        ("a.py:3: UserWarning: old\n  warnings.warn('old')\n", ""),
        ("", ""),
    ],
)
def test_the_root_cause(log: str, line: str) -> None:
    assert root_cause(log) == line


def test_a_root_cause_is_short_and_keeps_its_hint() -> None:
    cause = root_cause("Traceback (most recent call last):\nRuntimeError: out of memory " + "x" * 1000, "backend.a")
    assert len(cause) <= 300
    assert cause.endswith("x ...; lower backend.a or model.context_length")
