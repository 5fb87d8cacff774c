"""The lab's own sandbox, for machines without bubblewrap: new namespaces, and a root file system with Python's needs.

An ordinary user gets the rights to make it from a user namespace; root has them. Runs before `zygote.main` in the same
interpreter. Raises OSError if the machine forbids it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Sequence

from . import kernel

_USER, _OTHERS = 0x10000000, 0x00020000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000  # CLONE_NEW*
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
_DETACH = 2
_PIVOT_ROOT, _MOUNT_SETATTR = {"x86_64": (155, 442), "aarch64": (41, 442)}.get(os.uname().machine, (-1, -1))
_HERE, _RECURSIVE = -100, 0x8000  # AT_FDCWD, AT_RECURSIVE

_libc = ctypes.CDLL(None, use_errno=True)


def enter(readable: Sequence[str], tmp_bytes: int) -> None:
    """Return in a child that is the first process of its namespaces; this process waits for the child and exits."""
    uid, gid = os.getuid(), os.getgid()
    kernel.check(_libc.unshare(ctypes.c_int(_OTHERS if uid == 0 else _OTHERS | _USER)), "unshare")
    if uid:
        for name, text in (("setgroups", "deny"), ("uid_map", f"65534 {uid} 1"), ("gid_map", f"65534 {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    child = os.fork()
    if child:
        os.close(0)  # the socket must close when the child ends
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    _new_root(readable, tmp_bytes)


def _mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    words = (source.encode(), target.encode(), kind and kind.encode(), ctypes.c_ulong(flags), options.encode())
    kernel.check(_libc.mount(*words), f"mount {target}")


def _protect(target: str, flags: int) -> None:
    """mount_setattr(2) on `target` and all mounts below it."""
    attributes = struct.pack("QQQQ", flags, 0, 0, 0)
    kernel.call("mount_setattr", _MOUNT_SETATTR, _HERE, target.encode(), _RECURSIVE, attributes, len(attributes))


def _new_root(readable: Sequence[str], tmp_bytes: int) -> None:
    """Pivot into an empty read-only tree with `readable`, five devices, /proc and a small /tmp."""
    sources = {path: os.path.realpath(path) for path in readable}
    _mount("none", "/", None, _REC | _PRIVATE)
    _mount("tmpfs", "/usr", "tmpfs", _NOSUID | _NODEV, "size=1m,mode=755")  # any folder will do
    os.mkdir("/usr/old")
    os.mkdir("/usr/new")
    kernel.call("pivot_root", _PIVOT_ROOT, b"/usr", b"/usr/old")
    os.chdir("/")
    _mount("tmpfs", "/new", "tmpfs", _NOSUID | _NODEV, "size=1m,mode=755")
    for folder in ("/new/tmp", "/new/proc", "/new/dev"):
        os.mkdir(folder)
    _mount("tmpfs", "/new/tmp", "tmpfs", _NOSUID | _NODEV, f"size={tmp_bytes},nr_inodes=8192,mode=1777")
    _mount("proc", "/new/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
    for path, source in sources.items():
        _show(source, path, _RDONLY | _NOSUID | _NODEV)
    for path in kernel.DEVICES:
        _show(path, path, _NOSUID | _NOEXEC)
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink(f"/proc/self/fd{target}", f"/new/dev/{name}")
    _mount("none", "/new", None, _REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV)
    os.chdir("/new")
    kernel.call("pivot_root", _PIVOT_ROOT, b".", b".")
    kernel.check(_libc.umount2(b".", _DETACH), "umount")
    os.chdir("/tmp")


def _show(source: str, path: str, protection: int) -> None:
    """Bind the file or folder `source` of the old tree to `path` in the new one."""
    source, target = f"/old{source}", f"/new{path}"
    if os.path.lexists(target) or not os.path.exists(source):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.isdir(source):
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_CLOEXEC))
    _mount(source, target, None, _BIND | _REC)
    _protect(target, protection)
