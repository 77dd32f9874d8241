"""One driver a run: two that wrote the same run's files would make a mixture of them."""

import contextlib
import fcntl
import itertools
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from model.errors import InputError


@contextlib.contextmanager
def only_driver(storage: Path, run_name: str, *, new: bool = False) -> Iterator[str]:
    """Hold a run for the body, and yield its name; ``new``: the first of NAME, NAME-2 ... that nobody has.

    Raises InputError while another process holds it. The kernel releases the lock of a process that dies.
    """
    for number in itertools.count(1):
        name = run_name if number == 1 else f"{run_name}-{number}"
        if new and (storage / name).exists():
            continue
        with (storage / "locks" / f"run-{name}.lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if new:
                    continue
                lock.seek(0)
                problem = f"is being computed by {lock.read().strip() or 'another process'}"
                raise InputError(f"run {name}", problem, "a run that no other process works on") from None
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {platform.node()}\n")
            lock.flush()
            try:
                yield name
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)  # closing is not enough while a forked child has the file open
            return
