"""The kinds of sandbox, and the command that starts a worker in each.

bubblewrap  namespaces (user unless root, pid, network, IPC, host name, mounts), made by `bwrap`
unshare     the same namespaces, made by the lab (`inside/launch.py`); Linux 5.12 or newer
landlock    no namespaces: Landlock (Linux 5.13 or newer) lets a program read Python and /usr and write nothing, not
            even in /tmp. It does not hide whether a file exists, nor its size and dates.
none        limits only; needs `grader.allow_unsafe=true`

In the first three a seccomp filter refuses new processes, sockets, signals to others, other views of the file system
and memory outside the limits (`inside/kernel.py`); x86_64 and aarch64 only.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from pacore_lab.grading.code.inside.kernel import DEVICES
from pacore_lab.grading.code.inside.zygote import MAX_THREADS

Kind: TypeAlias = Literal["bubblewrap", "unshare", "landlock", "none"]
KINDS: tuple[Kind, ...] = ("bubblewrap", "unshare", "landlock")
"""In order of preference."""
SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/alternatives")
BOOT = "import sys; sys.path.insert(0, sys.argv[1]); import inside.zygote as z; del sys.path[0]; z.main(sys.argv[2])"
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
}
"""A program's whole environment. Numerical libraries would reserve memory per thread, counted against its limit."""
_HERE = Path(__file__).parent
_TMP_BYTES = 64 << 20
_numbers = itertools.count()


def readable() -> list[str]:
    """Folders and files a program may read: the interpreter, its packages, the system's libraries; parents first."""
    python = [sys.prefix, sys.base_prefix, sys.exec_prefix, sysconfig.get_path("stdlib")]
    python.append(os.path.dirname(os.path.realpath(sys.executable)))
    kept: list[str] = []
    for path in sorted({*SYSTEM, *map(os.path.abspath, python)}, key=len):
        if os.path.exists(path) and not any(Path(path).is_relative_to(parent) for parent in kept):
            kept.append(path)
    return kept


def command(kind: Kind) -> list[str]:
    """A worker's command; its standard input is the socket. Raises FileNotFoundError if bubblewrap is not installed."""
    root = os.getuid() == 0
    shown = [*readable(), str(_HERE / "inside")] if kind == "landlock" else readable()
    settings = {
        "kind": kind,
        "readable": shown,
        "tmp_bytes": _TMP_BYTES,
        "threads": MAX_THREADS + 8 if _own_count(kind) else None,
        "user": 61184 + (os.getpid() * 16 + next(_numbers)) % 4000 if root and kind != "none" else 0,
    }
    python = [sys.executable, "-P", "-s", "-c", BOOT]
    if kind != "bubblewrap":
        return [*python, str(_HERE), json.dumps(settings)]
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise FileNotFoundError("bwrap is not installed")
    return [bwrap, *_namespaces(root), *_mounts(shown), "--", *python, "/sandbox", json.dumps(settings)]


def _own_count(kind: Kind) -> bool:
    """Whether RLIMIT_NPROC counts a worker's threads alone: under a user id of its own, or in a user namespace with its
    own count (Linux 5.14). Elsewhere it would count everything the user runs."""
    if kind == "none":
        return False
    if os.getuid() == 0:
        return True
    major, minor = (int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    return kind != "landlock" and (major, minor) >= (5, 14)


def _namespaces(root: bool) -> list[str]:
    """Root needs no user namespace, and keeps the capabilities to change its user (`zygote.main`)."""
    user = ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    rights = ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    spaces = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    return [*(rights if root else user), *spaces, "--as-pid-1", "--die-with-parent"]


def _mounts(paths: Sequence[str]) -> list[str]:
    mounts = ["--perms", "1777", "--size", str(_TMP_BYTES), "--tmpfs", "/tmp", "--proc", "/proc", "--dir", "/dev"]
    for path in DEVICES:
        mounts += ["--dev-bind", path, path]
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        mounts += ["--symlink", f"/proc/self/fd{target}", f"/dev/{name}"]
    folders = {str(parent): None for path in paths for parent in reversed(Path(path).parents)}
    for folder in folders:
        if folder not in ("/", "/tmp"):  # as root, bwrap would make them readable by root alone
            mounts += ["--perms", "0755", "--dir", folder]
    for path in paths:
        mounts += ["--ro-bind", os.path.realpath(path), path]
    mounts += ["--ro-bind", str(_HERE / "inside"), "/sandbox/inside"]
    return [*mounts, "--remount-ro", "/", "--chdir", "/tmp"]
