"""One sandboxed process (`inside/zygote.py`) and the conversation with it. Its replies are not trusted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import subprocess
from dataclasses import asdict, dataclass
from typing import IO, Any

from pacore_lab.grading.code.sandbox import ENVIRONMENT, Kind, command

START_TIMEOUT = 60.0
GRACE = 30.0
"""Seconds beyond a program's own limit before a silent worker is given up."""
_MAX_HEAD = 1 << 16


class Fault(Exception):
    """The sandbox failed, not the program; the message says how."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """A program's limits on one test: seconds of CPU and wall time, bytes of memory, and of output and each file."""

    cpu: float
    wall: float
    memory_bytes: int
    output_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """mode: how `inside/program.py` runs the code. function: the name to call, in the call modes."""

    mode: str
    code: str
    input: str
    function: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """How a program ended.

    stopped: the limit for which the zygote killed it ("wall", "cpu", "threads", "files"), "" for none. status: its exit
    status, or minus a signal. note: "+" once confined, then "end" or the exception that ended it, as reported by the
    program's own process. waited: seconds it was ready to run without a CPU; known only after "wall".
    """

    stopped: str
    status: int
    cpu: float
    wall: float
    waited: float
    note: str
    output: bytes


class Worker:
    """Runs one job at a time. An interrupted `run` leaves the worker unusable: `kill` it."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self._process = process
        self._control = control
        self._waiting = False
        self.usable = True

    @classmethod
    async def start(cls, kind: Kind) -> Worker:
        """A worker that is ready. Raises Fault with the sandbox's message."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            inherited = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
            process = subprocess.Popen(  # noqa: ASYNC220 - takes milliseconds, and this thread must be the parent
                command(kind),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd="/",
                env=ENVIRONMENT | inherited,
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise Fault(str(error)) from error
        finally:
            theirs.close()
        worker = cls(process, ours)
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await worker._receive()
        except BaseException as error:
            said = worker.kill().strip().splitlines()
            if isinstance(error, (Fault, TimeoutError)):
                raise Fault(said[-1] if said else str(error) or f"not ready within {START_TIMEOUT:g} s") from error
            raise
        return worker

    async def run(self, job: Job, limits: Limits) -> End:
        """Run the job and return its end. Raises Fault."""
        self.usable = False
        given = job.input.encode("utf-8", "replace") if job.mode == "script" else b""
        try:
            with _file(json.dumps(asdict(job)).encode()) as task, _file(given) as stdin, _file(b"") as output:
                files = [file.fileno() for file in (task, stdin, output)]
                socket.send_fds(self._control, [json.dumps(asdict(limits)).encode()], files)
                async with asyncio.timeout(limits.wall + GRACE):
                    answer = await self._receive()
                clean = answer.pop("clean")
                written = os.pread(output.fileno(), limits.output_bytes, 0)
                end = End(**answer, output=written)
        except TimeoutError as error:
            raise Fault(f"the sandbox was silent for {limits.wall + GRACE:g} s") from error
        except (OSError, KeyError, TypeError) as error:
            raise Fault(f"the sandbox died ({error})") from error
        self.usable = bool(clean)
        return end

    def kill(self) -> str:
        """End the sandbox and everything in it at once; return what it wrote to stderr. Safe to call twice.

        A caller waiting in `run` gets a Fault, and calls this once more.
        """
        self.usable = False
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        if not self._waiting:  # closing a socket under a waiting event loop never wakes the loop
            self._control.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        assert self._process.stderr is not None
        said = b""
        if not self._process.stderr.closed:
            os.set_blocking(self._process.stderr.fileno(), False)
            said = self._process.stderr.read(4096) or b""
            self._process.stderr.close()
        self._process.wait()
        return said.decode("utf-8", "replace")

    async def _receive(self) -> dict[str, Any]:
        size = struct.unpack("!I", await self._read(4))[0]
        if size > _MAX_HEAD:
            raise Fault("the sandbox sent nonsense")
        try:
            answer = json.loads(await self._read(size))
        except ValueError as error:
            raise Fault("the sandbox sent nonsense") from error
        if not isinstance(answer, dict):
            raise Fault("the sandbox sent nonsense")
        return answer

    async def _read(self, size: int) -> bytes:
        loop, data = asyncio.get_running_loop(), bytearray(size)
        view, filled = memoryview(data), 0
        self._waiting = True
        try:
            while filled < size:
                got = await loop.sock_recv_into(self._control, view[filled:])
                if not got:
                    raise Fault("the sandbox died")
                filled += got
        finally:
            self._waiting = False
        return bytes(data)


def _file(data: bytes) -> IO[bytes]:
    """An unnamed file in memory, positioned at its start."""
    file = open(os.memfd_create("pacore"), "w+b", buffering=0)  # noqa: SIM115 - the caller closes it
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
    file.seek(0)
    return file
