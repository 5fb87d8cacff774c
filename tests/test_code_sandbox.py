"""The sandboxes of the code graders: which one is taken, what it shows, and which system calls it lets through."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pacore_lab.errors import ConfigError
from pacore_lab.grading.code import LcbOfficial, LcbSubprocess, sandbox
from pacore_lab.grading.code.inside.kernel import seccomp_filter
from tests.sandboxes import BROKEN, DOUBLE, RIGHT, SANDBOXES, WORKING, graded, needs_sandbox, soon, zygotes

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("kind", SANDBOXES)
async def test_the_version_names_the_sandbox(kind: str) -> None:
    grader = LcbOfficial(sandbox=kind, workers=1, timeout=2.5)
    await grader.start()
    assert f"sandbox {kind}" in grader.version
    assert grader.version.startswith("lcb_official 1, score all, Python 3.")
    assert "2.5 s CPU" in grader.version
    await grader.close()
    await grader.close()
    assert soon(lambda: not zygotes())


async def test_without_a_sandbox_it_refuses_and_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(kind: str) -> list[str]:
        return [sys.executable, "-c", f"import sys; sys.exit('no {kind} today')"]

    monkeypatch.setattr("pacore_lab.grading.code.worker.command", fails)
    grader = LcbOfficial(workers=1)
    with pytest.raises(ConfigError, match=r"bubblewrap: no bubblewrap today.*grader.allow_unsafe=true"):
        await grader.start()
    await grader.close()


async def test_allow_unsafe_is_the_last_resort(monkeypatch: pytest.MonkeyPatch) -> None:
    real = sandbox.command
    monkeypatch.setattr(
        "pacore_lab.grading.code.worker.command", lambda kind: real(kind) if kind == "none" else ["/bin/false"]
    )
    grader = LcbSubprocess(workers=1, allow_unsafe=True, timeout=1, wall_timeout=3, memory_mb=512)
    assert (await graded(grader, DOUBLE, RIGHT)).score == 1.0
    assert "sandbox none" in grader.version
    code = "import os, time\nif os.fork() == 0: time.sleep(1000)\nwhile True: pass"
    assert (await graded(grader, DOUBLE, code)).reason == "time limit on test 1"
    assert (await graded(grader, DOUBLE, "x = bytearray(1 << 40)")).reason == "memory on test 1"
    assert soon(lambda: len(zygotes()) == 1)
    await grader.close()


@needs_sandbox
async def test_without_bubblewrap_the_next_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pacore_lab.grading.code.sandbox.shutil.which", lambda name: None)
    grader = LcbSubprocess(workers=1)
    if {"unshare", "landlock"} <= set(BROKEN):
        with pytest.raises(ConfigError, match="bwrap is not installed"):
            await grader.start()
    else:
        assert (await graded(grader, DOUBLE, RIGHT)).score == 1.0
        assert "bubblewrap" not in grader.version
    await grader.close()


AS_NOBODY = """
import asyncio, os, sys
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
from pacore_lab.grading.code import LcbSubprocess
from tests.sandboxes import DOUBLE, graded

async def main():
    for kind in ("bubblewrap", "unshare", "landlock"):
        grader = LcbSubprocess(sandbox=kind, workers=1, timeout=1, wall_timeout=3)
        try:
            await grader.start()
            right = await graded(grader, DOUBLE, "print(2 * int(input()))")
            bomb = await graded(grader, DOUBLE, "import os\\nwhile True: os.fork()")
            write = await graded(grader, DOUBLE, "open('/var/tmp/pacore-nobody', 'w')")
            print(kind, right.score, bomb.score, write.score)
        except Exception as error:
            print(kind, error)
        await grader.close()

asyncio.run(main())
"""


@needs_sandbox
@pytest.mark.skipif(os.getuid() != 0, reason="the other tests run as an ordinary user already")
def test_an_ordinary_user_gets_the_same() -> None:
    readable = [sys.prefix, sys.base_prefix, str(ROOT)]
    shut = [path for path in readable for part in [Path(path), *Path(path).parents] if not part.stat().st_mode & 1]
    if shut:
        pytest.skip(f"an ordinary user cannot read {shut[0]}")
    done = subprocess.run([sys.executable, "-c", AS_NOBODY], cwd=ROOT, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        kind, *scores = line.split()
        assert scores == ["1.0", "0.0", "0.0"] or kind != WORKING, done.stdout + done.stderr


def test_the_sandbox_shows_no_home_and_no_outputs() -> None:
    shown = sandbox.readable()
    for path in (str(Path.home()), str(ROOT), str(ROOT / "outputs"), "/etc", "/var", "/home", "/root"):
        assert path not in shown
    assert any(Path(sys.prefix).is_relative_to(path) for path in shown)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_filter_is_whole_instructions_that_end_in_a_verdict(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    program = seccomp_filter(7)
    assert len(program) % 8 == 0
    assert program[-8:-6] == b"\x06\x00"
    for at in range(0, len(program), 8):  # no jump leads beyond the end
        assert at + 8 * (1 + max(program[at + 2], program[at + 3])) < len(program) or program[at] == 6


def test_an_unknown_machine_has_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "pdp11")
    with pytest.raises(OSError, match="pdp11"):
        seccomp_filter(7)
