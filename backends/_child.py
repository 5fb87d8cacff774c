"""An engine in a process of its own: started in its own session, logged to a file, and gone when we are."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from pathlib import Path

from pacore_lab.errors import BackendError

WARDEN = Path(__file__).with_name("_warden.py")
TAIL = 256 * 1024
"""Bytes at the end of a log that are searched for a reason."""
LONGEST = 300


def interpreter(python: str | None) -> str:
    """The interpreter that `backend.python` names, itself or by its virtual environment's folder; None is this one.

    Raises BackendError if there is none.
    """
    if python is None:
        return sys.executable
    given = Path(python).expanduser()
    found = given / "bin" / "python" if given.is_dir() else given
    if not os.access(found, os.X_OK) or found.is_dir():
        raise BackendError(f"backend.python={python}: there is no Python at {found}; give its path or its venv's")
    return str(found.absolute())


class Child:
    """A running program whose output goes to `log`. Made by `Child.start`."""

    def __init__(self, process: Process, log: Path, seconds: float) -> None:
        self.log = log
        self._process, self._seconds = process, seconds
        self._since = 0

    @classmethod
    async def start(
        cls,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        fds: Sequence[int] = (),
        seconds: float = 10,
    ) -> Child:
        """Start a program that inherits `fds`; `env` is added to our environment.

        seconds: from SIGTERM until everything it started gets SIGKILL.
        """
        log = Path(tempfile.mkdtemp(prefix=f"pacore-{name}-")) / "log.txt"
        given = ",".join(map(str, fds))
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(WARDEN), str(seconds), given, str(log.parent), *command),
                stdin=PIPE,  # the warden stops the program when this closes
                stdout=output,
                stderr=output,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
                pass_fds=fds,
                start_new_session=True,  # a Ctrl-C in the terminal reaches us alone
            )
        return cls(process, log, seconds)

    @property
    def ended(self) -> bool:
        return self._process.returncode is not None

    async def wait(self) -> int:
        """The exit code, once the program and everything it started have ended."""
        return await self._process.wait()

    async def stop(self) -> None:
        """Stop the program and wait until nothing of it runs; safe to call twice, and to cancel."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), self._seconds + 30)
        except TimeoutError:  # something not even SIGKILL ends; the kernel kills the program with its warden
            self._process.kill()
            await self._process.wait()

    def now_ready(self) -> None:
        """From here on, the output of its start no longer counts as a reason."""
        self._since = self.log.stat().st_size

    def discard_log(self) -> None:
        shutil.rmtree(self.log.parent, ignore_errors=True)

    def reason(self, memory_key: str) -> str:
        """Why it failed, in one line, and where the log is. memory_key: the option that bounds the engine's memory."""
        with self.log.open("rb") as log:
            log.seek(max(self._since, self.log.stat().st_size - TAIL))
            text = log.read().decode(errors="replace")
        return f"{root_cause(text, memory_key) or self._silent()} (log: {self.log})"

    def _silent(self) -> str:
        code = self._process.returncode
        if code is None:
            return "it has said nothing yet"
        killed = " (killed, perhaps for want of memory)" if code == 137 else ""
        return f"it said nothing, exit code {code}{killed}"


CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[^\S\n]|[\x00-\x09\x0b-\x1f\x7f-\x9f]")
# What engines put before a line: "(EngineCore pid=12) ERROR 07-31 12:00:00 [core.py:1]", "[2026-07-31 12:00:00 TP0]"
PREFIX = re.compile(
    r"^(?:\([\w ]+?(?:pid=\d+)?\)\s?)?(?:(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\]\s?)?"
    r"(?:\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[^\]]*\]\s?)?"
)
RAISED = re.compile(r"^[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|OutOfMemory\w*|Timeout|Refused)(?::.*)?$")
TRACEBACK = "Traceback (most recent call last)"
CHAINED = re.compile(r"^(?:During handling of the above|The above exception was the direct cause)")
# Consequences of other errors: never the reason if there is another.
SECOND_HAND = re.compile(
    r"^(?:SystemExit|KeyboardInterrupt|asyncio\.exceptions\.CancelledError|(?:\w+\.)*BrokenPipeError|EOFError"
    r"|ConnectionResetError|(?:\w+\.)*EngineDeadError|ProcessLookupError)"
    r"|Engine core initialization failed|See root cause above|Rank \d+ scheduler (?:is dead|died)|WorkerProc init"
)
PLAIN = re.compile(
    r"\berror: \S|^\S+: No module named|Error while finding module|crashed with exit code|Segmentation fault"
    r"|Fatal Python error|terminate called|what\(\): "
)
NOISE = re.compile(r"warnings\.warn\(|Warning: ")
MEMORY_TAKEN = re.compile(
    r"out of memory|OutOfMemory|cannot allocate memory|bad_alloc|MemoryError|OOM killer", re.IGNORECASE
)
MEMORY_SHORT = re.compile(
    r"KV cache (?:is|memory) needed|available KV cache|for the cache blocks|Not enough memory|mem-fraction-static"
    r"|memory utilization|max_total_num_tokens",
    re.IGNORECASE,
)


def root_cause(log_text: str, memory_key: str = "backend.gpu_memory_utilization") -> str:
    """The line of an engine's log that says why it failed, at most 300 characters; "" for an empty log.

    It is the exception at the end of the first traceback that is not merely the consequence of another; without one,
    the last line that says error, else the last line.
    """
    lines = [_clean(line) for line in log_text.replace("\r", "\n").split("\n")]
    reason = _raised(lines) or next((line for line in reversed(lines) if PLAIN.search(line)), "")
    reason = reason or next((line for line in reversed(lines) if line.strip() and not NOISE.search(line)), "")
    reason, hint = " ".join(reason.split()).removeprefix("error: "), ""
    if MEMORY_TAKEN.search(reason):
        hint = f"; lower {memory_key} or model.context_length"
    elif MEMORY_SHORT.search(reason):
        hint = f"; lower model.context_length or raise {memory_key}"
    return _shorten(reason, LONGEST - len(hint)) + hint


def _clean(line: str) -> str:
    return PREFIX.sub("", CONTROL.sub(" ", line)).rstrip()


def _raised(lines: list[str]) -> str:
    """The end of the first chain of tracebacks that matters."""
    chains: list[str] = []
    within, chained = False, False
    for i, line in enumerate(lines):
        if TRACEBACK in line:
            within = True
        elif CHAINED.match(line):
            chained = True
        elif within and RAISED.match(line):
            details = (line, *_indented(lines[i + 1 : i + 9]))
            if not chained or not chains:
                chains.append(" ".join(details))
            elif SECOND_HAND.search(chains[-1]) or not SECOND_HAND.search(line):
                chains[-1] = " ".join(details)
            within = chained = False
    return next((chain for chain in chains if not SECOND_HAND.search(chain)), chains[-1] if chains else "")


def _indented(lines: list[str]) -> list[str]:
    """The indented lines below an exception's line, which belong to its message."""
    end = next((i for i, line in enumerate(lines) if not line.startswith(" ")), len(lines))
    return lines[:end]


def _shorten(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 4].rstrip() + " ..."
