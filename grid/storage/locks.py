"""Locks between processes and threads, which the kernel releases when their holder dies.

They are ``fcntl.flock`` and not the package filelock, whose waiters only poll: they sleep between tries, and are served
late and in no order.
"""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[TextIO]:
    """Hold the lock of a file for the body; yields the file, open for appending and reading.

    A thread that asks again for a lock that it holds waits for itself for ever. The file is made where it is missing,
    and never removed: whoever waited for a removed one would share the lock with the holder of its successor. Raises
    BlockingIOError where it is held and ``wait`` is False.
    """
    with path.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        try:
            yield file
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # closing is not enough while a forked child has the file open
