"""Ends a process that hangs: without news for too long it leaves the stacks of all its threads and exits."""

import contextlib
import faulthandler
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model.progress import Progress

_REARM_EVERY_S = 0.5


def hung_log(storage: Path, stage: str, node_id: str) -> Path:
    """Where the stacks of a stage that hung are."""
    return storage / "logs" / "hung" / f"{stage}-{node_id}.log"


@contextlib.contextmanager
def watched(progress: Progress, patience_s: float | None, log: Path) -> Iterator[Progress]:
    """Yield a ``progress`` that must be called every ``patience_s`` seconds; None waits for ever.

    Where it is not, the whole process ends with status 1. A thread of the interpreter itself sees to it
    (``faulthandler``), so that code which never lets go of the interpreter's lock is ended, too.
    """
    if patience_s is None:
        yield progress
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    armed_at = 0.0
    with log.open("w") as stacks:

        def arm() -> None:
            nonlocal armed_at
            armed_at = time.monotonic()
            faulthandler.dump_traceback_later(patience_s, exit=True, file=stacks)

        def report(info: dict[str, Any]) -> None:
            if time.monotonic() - armed_at > min(_REARM_EVERY_S, patience_s / 4):
                arm()
            progress(info)

        arm()
        try:
            yield report
        finally:
            faulthandler.cancel_dump_traceback_later()
    log.unlink(missing_ok=True)
