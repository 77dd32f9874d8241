"""One driver a run: two that wrote the same run's files would make a mixture of them."""

import contextlib
import itertools
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from grid.storage.locks import locked
from grid.storage.runs import run_folder
from model.errors import InputError


@contextlib.contextmanager
def only_driver(storage: Path, run_name: str, *, new: bool = False) -> Iterator[str]:
    """Hold a run for the body, and yield its name; ``new``: the first of NAME, NAME-2 ... that nobody has.

    Raises InputError while another process holds it.
    """
    with contextlib.ExitStack() as held:
        for number in itertools.count(1):
            name = run_name if number == 1 else f"{run_name}-{number}"
            if new and run_folder(storage, name).exists():
                continue
            path = storage / "locks" / f"run-{name}.lock"
            try:
                file = held.enter_context(locked(path, wait=False))
                break
            except BlockingIOError:
                if new:
                    continue
                holder = path.read_text(encoding="utf-8").strip() or "another process"
                problem = f"is being computed by {holder}"
                raise InputError(f"run {name}", problem, "a run that no other process works on") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield name
