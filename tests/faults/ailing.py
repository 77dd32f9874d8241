"""Stages that fail in every way in which a stage can, in the worker in which they run."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from grid.planning.plan import Node
from grid.stages.work import Context


def raises() -> None:
    raise RuntimeError("it broke")


def runs_out_of_memory() -> None:
    raise MemoryError("no 12 GB left")


def is_killed() -> None:
    os.kill(os.getpid(), 9)


def hangs() -> None:
    while True:
        time.sleep(3600)


def finds_the_disk_full() -> None:
    raise OSError(28, "No space left on device")


def loses_a_file() -> None:
    raise FileNotFoundError(2, "No such file or directory", "/mnt/nfs/x")


AILMENTS: dict[str, Callable[[], None]] = {
    ailment.__name__: ailment
    for ailment in (raises, runs_out_of_memory, is_killed, hangs, finds_the_disk_full, loses_a_file)
}


def ailing_stage_trial(
    config: dict[str, Any], nodes: dict[str, Node], context: Context, ill: dict[str, str], **more: Any
) -> None:
    """The trainable of ``grid.scheduling.worker``; stages in ``ill`` (ailments by id) fail until ``well`` is there.

    Every attempt leaves a line in ``attempts.txt``. Runs in a worker: what it patches is patched there.
    """
    from grid.scheduling import worker
    from grid.stages import run as trial

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "_compute", noted(trial._compute, context.storage, ill))
        worker.stage_trial(config, nodes=nodes, context=context, **more)


def stage_trial_on_a_full_disk(*given: Any, **more: Any) -> None:
    """The same on a disk that is full to whoever looks."""
    from grid.scheduling import worker

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "storage_problem", lambda root: f"{root} cannot be written to (No space left on device)")
        ailing_stage_trial(*given, **more)


def noted(compute: Callable[..., None], storage: Path, ill: dict[str, str]) -> Callable[..., None]:
    """``compute`` with a line for every stage, and its ailment before."""

    def look(node: Node, *rest: Any) -> None:
        with suppress(OSError), (storage / "attempts.txt").open("a") as file:
            file.write(f"{node.id}\n")
        if node.id in ill and not (storage / "well").exists():
            AILMENTS[ill[node.id]]()
        compute(node, *rest)

    return look


def attempts(storage: Path) -> list[str]:
    """The stages that were begun, by id, in their order."""
    file = storage / "attempts.txt"
    return file.read_text().split() if file.exists() else []
