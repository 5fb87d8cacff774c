"""The zygote's small tasks: clearing folders, reading a socket, and asking the kernel about processes and paths."""

from __future__ import annotations

import os
import stat


def clear(folder: str, device: int | None = None) -> None:
    """Remove the contents of `folder`, except other mounts. Raises OSError or RecursionError if it cannot."""
    device = os.stat(folder).st_dev if device is None else device
    try:
        names = list(os.scandir(folder))
    except PermissionError:  # a program may have closed its own folders
        os.chmod(folder, 0o700)
        names = list(os.scandir(folder))
    for entry in names:
        found = entry.stat(follow_symlinks=False)
        if found.st_dev != device:
            continue
        if stat.S_ISDIR(found.st_mode):
            clear(entry.path, device)
            if not any(os.scandir(entry.path)):  # not empty if it leads to another mount
                os.rmdir(entry.path)
        else:
            os.unlink(entry.path)


def read_some(descriptor: int) -> str:
    """What has been sent so far, at most 100 bytes."""
    try:
        return os.read(descriptor, 100).decode("ascii", "replace")
    except BlockingIOError:  # a process that we could not end still holds the other end
        return ""


def run_delay(pid: int) -> float:
    """Seconds that threads of `pid` were ready to run without a CPU; 1e9 if the kernel does not tell."""
    total = 0
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
                total += int(file.read().split()[1])
    except (OSError, IndexError, ValueError):
        return 1e9
    return total / 1e9


def world_readable(path: str) -> bool:
    """Whether every user can enter the folder."""
    while path != "/":
        if not os.stat(path).st_mode & 0o001:
            return False
        path = os.path.dirname(path)
    return True
