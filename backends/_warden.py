"""Runs a program and leaves nothing of it behind: `python _warden.py SECONDS FD[,FD] FOLDER PROGRAM ARG...`

Standalone, with the standard library only. The warden stands between the lab and an engine, in a session of its own.
The program ends by itself, or is stopped when the lab closes this process's stdin or dies in any way. To stop it, the
warden sends it SIGTERM, and after SECONDS sends SIGKILL to everything that it started. The exit code is the program's
(128 + n for signal n). Once the warden has gone, so has everything below it. If the lab died, the warden also removes
FOLDER: nobody is left to read its log.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import sys
import time

REST = 1.5
"""Seconds that a finished program's helpers get to finish too, such as the one that unlinks shared memory."""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


class Warden:
    def __init__(self, seconds: float, fds: list[int], command: list[str]) -> None:
        self.seconds, self.lab = seconds, os.getppid()
        self.code: int | None = None
        self.asked_to_stop = False
        self.bell, bell = os.pipe()
        os.set_blocking(self.bell, False)
        os.set_blocking(bell, False)
        signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # rings the bell
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        prctl(PR_SET_CHILD_SUBREAPER, 1)  # orphans of the program become our children
        self.program = os.fork() or self._become(fds, command)
        for fd in fds:
            os.close(fd)

    def _stop(self, *_: object) -> None:
        self.asked_to_stop = True

    def _become(self, fds: list[int], command: list[str]) -> int:
        try:
            os.setsid()
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # in case this warden is killed itself
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            for fd in fds:
                os.set_inheritable(fd, True)
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, 0)
            os.execvp(command[0], command)
        except OSError as error:
            print(f"error: {command[0]} cannot be started: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(127)

    def run(self) -> int:
        while self.code is None and not self.asked_to_stop and os.getppid() == self.lab:
            ready, _, _ = select.select([0, self.bell], [], [], 1.0)
            if 0 in ready:
                break
            self._reap()
        if self.code is None:
            os.kill(self.program, signal.SIGTERM)
            self._wait(self.seconds, for_program=True)
        self._wait(REST if self.code is not None else 0)
        while self._reap():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.program, signal.SIGKILL)
            for child in children():
                os.kill(child, signal.SIGKILL)
            time.sleep(0.02)
        return 128 + signal.SIGKILL if self.code is None else self.code

    def _wait(self, seconds: float, *, for_program: bool = False) -> None:
        """Wait until no child is left, or the program has ended (if for_program), or the time is up."""
        deadline = time.monotonic() + seconds
        while self._reap() and not (for_program and self.code is not None) and time.monotonic() < deadline:
            time.sleep(0.02)

    def _reap(self) -> bool:
        """Reap the children that have ended; whether any are left. Notes how the program ended."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.bell, 1024)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.program:
                code = os.waitstatus_to_exitcode(status)
                self.code = code if code >= 0 else 128 - code


def children() -> list[int]:
    """Our direct children; none on a system without /proc, where the program's group is all that can be killed."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if entry.isdigit():
                    with open(f"/proc/{entry}/stat", "rb") as stat:
                        parent = int(stat.read().rpartition(b")")[2].split()[1])
                    if parent == os.getpid():
                        found.append(int(entry))
    return found


if __name__ == "__main__":
    given = [int(fd) for fd in sys.argv[2].split(",") if fd]
    warden = Warden(float(sys.argv[1]), given, sys.argv[4:])
    code = warden.run()
    if os.getppid() != warden.lab:
        shutil.rmtree(sys.argv[3], ignore_errors=True)
    sys.exit(code)
