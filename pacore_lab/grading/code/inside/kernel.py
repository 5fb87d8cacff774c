"""Linux features outside Python's standard library, through ctypes: prctl, capabilities, seccomp filters, Landlock."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable, Sequence

DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
"""The devices in a sandbox."""
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


def check(result: int, what: str) -> int:
    """`result` if it is not negative; else raises OSError naming what failed."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def call(what: str, number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """A raw system call. Raises OSError."""
    words = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return check(int(_syscall(ctypes.c_long(number), *words)), what)


def prctl(option: int, value: int, pointer: ctypes.Array[ctypes.c_char] | None = None) -> None:
    words = (ctypes.c_ulong(value), pointer or ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))
    check(_libc.prctl(ctypes.c_int(option), *words), f"prctl {option}")


def drop_capabilities() -> None:
    """Drop all capabilities, whatever the user id; a program that is executed later cannot regain any."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    header = struct.pack("Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    check(_libc.capset(header, bytes(24)), "capset")


# seccomp: calls a program has no business making. Numbers for x86_64 and aarch64; None where there is no such call.
_REFUSED: dict[str, tuple[int | None, int]] = {
    # other processes: no starting (a thread is a `clone` too, see below), watching, steering or signalling
    "fork": (57, -1),
    "vfork": (58, -1),
    "ptrace": (101, 117),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "setpriority": (141, 140),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "ioprio_set": (251, 30),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    # the network, and Unix sockets of services on this machine
    "socket": (41, 198),
    # memory outside every limit
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # file metadata, which Landlock does not guard
    "truncate": (76, 45),
    "chmod": (90, -1),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, -1),
    "fchown": (93, 55),
    "lchown": (94, -1),
    "fchownat": (260, 54),
    "utime": (132, -1),
    "utimes": (235, -1),
    "futimesat": (261, -1),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "setxattrat": (463, 463),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
    # other views of the file system, and large parts of the kernel that a solution never needs
    "unshare": (272, 97),
    "setns": (308, 268),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "personality": (135, 92),
    "perf_event_open": (298, 241),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH_*
_CHECKED = {"clone": (56, 220), "kill": (62, 129), "tgkill": (234, 131), "prlimit64": (302, 261), "prctl": (157, 167)}
_CLONE3 = 435
CLONE_THREAD = 0x10000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # classic BPF, linux/bpf_common.h
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000


def seccomp_filter(pid: int) -> bytes:
    """A filter for process `pid`: no new processes or sockets, no signals to others, no other call of `_REFUSED`.

    A refused call fails with EPERM. Raises OSError on a machine whose call numbers are not in the table.
    """
    if platform.machine() not in _MACHINES:
        raise OSError(errno.ENOSYS, f"no seccomp table for {platform.machine()}")
    column, arch = _MACHINES[platform.machine()]
    code: list[tuple[int, int, int, int]] = []

    def when(number: int | None, error: int) -> None:
        if number is not None and number >= 0:
            code.extend([(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | error)])

    def unless(name: str, test: int, value: int, *, inverted: bool = False) -> None:
        """Refuse the call unless its first argument passes the test (or fails it, if inverted)."""
        good, bad = (1, 0) if not inverted else (0, 1)
        code.append((_EQUAL, 0, 4, _CHECKED[name][column]))
        code.extend([(_LOAD, 0, 0, 16), (test, good, bad, value), (_RETURN, 0, 0, _ERRNO | errno.EPERM)])
        code.append((_RETURN, 0, 0, _ALLOW))

    code.extend([(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, arch), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)])
    code.extend([(_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, _KILL)])  # x32 numbers would evade the filter
    unless("clone", _ANY_BIT, CLONE_THREAD)
    unless("kill", _EQUAL, pid)
    unless("tgkill", _EQUAL, pid)
    unless("prlimit64", _EQUAL, 0)
    unless("prctl", _EQUAL, PR_SET_PDEATHSIG, inverted=True)
    when(_CLONE3, errno.ENOSYS)  # a filter cannot see its flags; libc falls back to clone
    for numbers in _REFUSED.values():
        when(numbers[column], errno.EPERM)
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)


def install(program: bytes) -> None:
    """Install a seccomp filter for this process, for good. The process must have set no_new_privs before."""
    text = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(text))
    prctl(PR_SET_SECCOMP, 2, ctypes.create_string_buffer(head, len(head)))


_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8


def landlock_abi() -> int:
    """The kernel's Landlock version. Raises OSError if there is none."""
    return call("landlock", 444, None, 0, 1)


def landlock(readable: Sequence[str], devices: Iterable[str]) -> int:
    """A ruleset, as a file descriptor for `restrict`: `readable` can be read and executed, `devices` also written.

    It refuses everything else: opening, creating, renaming and removing files; TCP from ABI 4 on; signals to others and
    abstract Unix sockets from ABI 6 on. Landlock does not guard metadata (stat says whether a file exists) or UDP.
    """
    abi = landlock_abi()
    files = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)) - 1
    attributes = struct.pack("QQQ", files, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = call("landlock_create_ruleset", 444, attributes, size, 0)
    for path, access in [*((p, _EXECUTE | _READ_FILE | _READ_DIR) for p in readable), *((p, 6) for p in devices)]:
        try:
            target = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # a missing path needs no rule
        allowed = access if os.path.isdir(path) else access & ~_READ_DIR
        call("landlock_add_rule", 445, ruleset, 1, struct.pack("=Qi", allowed, target), 0)
        os.close(target)
    return ruleset


def restrict(ruleset: int) -> None:
    call("landlock_restrict_self", 446, ruleset, 0)
