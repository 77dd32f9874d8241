"""One driver a run: two that wrote the same run's files would make a mixture of them."""

import contextlib
import fcntl
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from model.errors import InputError


@contextlib.contextmanager
def only_driver(storage: Path, run_name: str) -> Iterator[None]:
    """Hold a run for the body; raises InputError while another process holds it, on any machine that locks files.

    The kernel releases the lock of a process that dies.
    """
    path = storage / "locks" / f"run-{run_name}.lock"
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            problem = f"is being computed by {lock.read().strip() or 'another process'}"
            raise InputError(f"run {run_name}", problem, "a run that no other process works on") from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {platform.node()}\n")
        lock.flush()
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # closing is not enough while a forked child has the file open
