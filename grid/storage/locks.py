"""Locks between processes and threads, which the kernel releases when their holder dies.

These are ``fcntl.flock`` and not the package filelock, because that one only polls: its waiters sleep between tries, and
are served late and in no order. flock blocks until it is their turn.
"""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[TextIO]:
    """Hold the lock of a file for the body; yields the file, open for appending and reading.

    Two holders exclude each other wherever they are, also two of one thread: that one would wait for itself. The file is
    made where it is missing and never removed, since a process that waits for it would then hold another than the
    next. With ``wait=False``, raises BlockingIOError where it is held.
    """
    with path.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        try:
            yield file
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # closing is not enough while a forked child has the file open
