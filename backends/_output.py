"""Where an engine in this process prints."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from multiprocessing import resource_tracker


@contextlib.contextmanager
def output_to(handle: int) -> Iterator[None]:
    """What this process and the children it starts meanwhile print goes to a file: engines write to the terminal.

    The children do not hear a Ctrl-C either: it is for the run to end them.
    """
    resource_tracker.ensure_running()  # it unblocks the signal when it starts
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # of this thread, and of what it starts
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, old in zip((1, 2), kept, strict=True):
            os.dup2(old, number)
            os.close(old)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
