"""A worker's warm process, inside the sandbox: forks a confined process for each test and leaves nothing of it behind.

A request is a message of limits (JSON) with three files: the job, standard input, and the output to write. Only the
forked process reads them, so the zygote's memory, which every later program inherits, never holds a program, an input
or an output. The reply is a JSON object after four bytes of length. End of file on the socket ends the zygote and
everything it still runs. A forked process has none of the zygote's descriptors and cannot trace or signal it.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import math
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from typing import Any

from . import chores, kernel, program

POLL = 0.05
"""Seconds between two checks of a running program's threads and files."""
MAX_THREADS = 64
MAX_FILES = 64
MAX_ENTRIES = 4096
"""How many files a program may make in /tmp."""
STACK = 8 << 20
"""Bytes; LiveCodeBench also runs under the usual 8 MB. Contest judges give a script more."""
DEEP_STACK = 120 << 20
_PLACE_OF_PID = 0x5EEDF00D


class Zygote:
    """control: the socket to the grader. settings: see `main`."""

    def __init__(self, control: socket.socket, settings: dict[str, Any]) -> None:
        self._control = control
        self._kind: str = settings["kind"]
        self._namespaces = self._kind in ("bubblewrap", "unshare")
        if self._namespaces and os.getpid() != 1:  # `_sweep` kills every process it can see
            raise OSError("not the first process of a pid namespace")
        self._threads: int | None = settings["threads"]
        self._prelude = program.warm()
        confined = self._kind != "none"
        self._filter = kernel.seccomp_filter(_PLACE_OF_PID) if confined else b""
        self._ruleset: int | None = None
        if self._kind == "landlock":  # at a high number, clear of a child's descriptors
            ruleset = kernel.landlock(settings["readable"], kernel.DEVICES)
            self._ruleset = fcntl.fcntl(ruleset, fcntl.F_DUPFD_CLOEXEC, 10)
            os.close(ruleset)

    def serve(self) -> None:
        """Serve until the socket ends, or until a program leaves something irremovable: the whole sandbox then goes."""
        clean = True
        while clean:
            message, descriptors, _, _ = socket.recv_fds(self._control, 4096, 3)
            if len(descriptors) != 3:
                return
            answer = self._run(json.loads(message), *descriptors)
            clean = answer["clean"]
            self.send(answer)
            for descriptor in descriptors:
                os.close(descriptor)

    def send(self, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self._control.sendall(struct.pack("!I", len(body)) + body)

    def _run(self, limits: dict[str, Any], job: int, given: int, output: int) -> dict[str, Any]:
        """Run one program and return its `pacore_lab.grading.code.worker.End`, as a dict without the output."""
        # Through /proc a program could open the other end of a pipe and take back what it wrote; not so with a socket.
        note, told = (end.detach() for end in socket.socketpair())
        os.set_blocking(note, False)
        try:
            started = time.monotonic()
            child = os.fork()
            if child == 0:
                self._become(limits, job, given, output, told)
            os.close(told)
            told = -1
            stopped, waited = self._watch(child, started, limits["wall"], limits["cpu"])
            _, status, usage = os.wait4(child, 0)
            wall = time.monotonic() - started
            clean = self._sweep(child)
            return {
                "clean": clean,
                "stopped": stopped,
                "status": os.waitstatus_to_exitcode(status),
                "cpu": usage.ru_utime + usage.ru_stime,
                "wall": wall,
                "waited": waited,
                "note": chores.read_some(note),
            }
        finally:
            for descriptor in (note, told):
                if descriptor >= 0:
                    os.close(descriptor)

    def _watch(self, child: int, started: float, limit: float, cpu: float) -> tuple[str, float]:
        """Wait for the child to end or kill it: the limit it broke ("" if none), and seconds it waited for a CPU."""
        handle = os.pidfd_open(child)
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        poll.register(self._control, select.POLLIN)
        stopped, waited = "", 0.0
        try:
            while not stopped:
                left = started + limit - time.monotonic()
                ready = dict(poll.poll(max(0.0, min(left, POLL)) * 1000))
                if self._control.fileno() in ready:  # the grader is gone, or broke the protocol
                    self._kill(child)
                    sys.exit(0)
                if handle in ready:
                    return "", waited
                if left <= 0:
                    stopped, waited = "wall", chores.run_delay(child)
                else:
                    stopped = self._excess(child, cpu)
            self._kill(child)
        finally:
            os.close(handle)
        return stopped, waited

    def _excess(self, child: int, cpu: float) -> str:
        """The exceeded limit, of those that the kernel does not enforce, or not exactly; "" for none."""
        try:
            if time.clock_gettime(~child << 3 | 2) > cpu:  # the child's CPU clock, see clock_getcpuclockid(3)
                return "cpu"
            if len(os.listdir(f"/proc/{child}/task")) > MAX_THREADS:
                return "threads"
        except OSError:
            pass  # the child has just ended
        if self._namespaces:
            tmp = os.statvfs("/tmp")
            if tmp.f_files - tmp.f_ffree > MAX_ENTRIES:
                return "files"
        return ""

    def _kill(self, child: int) -> None:
        os.kill(child, signal.SIGKILL)
        self._kill_group(child)

    def _kill_group(self, child: int) -> None:
        """Without a sandbox a program may start processes; kill those that stayed in its group."""
        if self._kind == "none":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)

    def _sweep(self, child: int) -> bool:
        """End processes a program left running and clear /tmp. False if something could not be removed."""
        self._kill_group(child)
        if not self._namespaces:
            return True
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)  # all of this pid namespace but its first process: us
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
        try:
            chores.clear("/tmp")
        except (OSError, RecursionError):
            return False
        return True

    def _become(self, limits: dict[str, Any], job: int, given: int, output: int, told: int) -> None:
        """In the forked process: take the descriptors and the limits, enter the sandbox, run. Never returns."""
        try:
            with open(job, "rb", closefd=False) as file:
                task = json.load(file)
            os.dup2(given, 0)
            os.dup2(output, program.RESULT)
            os.dup2(told, program.NOTE)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            if self._kind == "none":
                os.setpgid(0, 0)
            self._limit(limits, deep=task["mode"] == "script")
            if self._ruleset is not None:
                kernel.restrict(self._ruleset)
            if self._filter:
                pid = struct.pack("I", os.getpid())
                kernel.install(self._filter.replace(struct.pack("I", _PLACE_OF_PID), pid))
            os.closerange(program.NOTE + 1, 1 << 16)
            gc.enable()
            program.run(task, self._prelude)
        except BaseException as error:
            os.write(program.NOTE, str(error).encode("ascii", "replace")[:80])
        finally:
            os._exit(1)

    def _limit(self, limits: dict[str, Any], *, deep: bool) -> None:
        values = {
            resource.RLIMIT_CPU: 2 * math.ceil(limits["cpu"]),  # the kernel counts ticks, too many on a busy machine
            resource.RLIMIT_AS: limits["memory_bytes"],
            resource.RLIMIT_FSIZE: limits["output_bytes"],
            resource.RLIMIT_NOFILE: MAX_FILES,
            resource.RLIMIT_STACK: DEEP_STACK if deep else STACK,
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_MEMLOCK: 0,
        }
        if self._threads is not None:
            values[resource.RLIMIT_NPROC] = self._threads
        for which, value in values.items():
            most = resource.getrlimit(which)[1]
            value = value if most == resource.RLIM_INFINITY else min(value, most)
            resource.setrlimit(which, (value, value))


def main(text: str) -> None:
    """Enter the sandbox, drop privileges, warm up, report ready, and serve. The socket is standard input.

    text: settings as JSON. "kind": the sandbox. "readable": paths. "tmp_bytes": size of /tmp. "threads": the value for
    RLIMIT_NPROC, or null. "user": the id that root changes to, 0 for none; root stays root if that user could not read
    the interpreter.
    """
    settings = json.loads(text)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if settings["kind"] == "unshare":
        from . import launch

        launch.enter(settings["readable"], settings["tmp_bytes"])
    control = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    user = settings["user"]
    if user and all(map(chores.world_readable, (os.path.dirname(os.__file__), sys.prefix))):
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)  # changing the user cleared the launcher's setting
    zygote = Zygote(control, settings)
    sys.argv = [""]
    zygote.send({"ready": True})
    os.dup2(nothing, 2)
    os.close(nothing)
    gc.collect()
    gc.freeze()  # children share the zygote's objects, so the collector must not touch them
    gc.disable()
    zygote.serve()
