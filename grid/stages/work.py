"""What a stage function gets and gives: its node, the folders of its inputs, and its outcome."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from grid.devices.address import Device
from grid.planning.plan import Node
from grid.space.settings import read_group
from grid.storage.remote import Remote
from grid.storage.result_store import StageStore, write_record
from model.data.pack import Pack
from model.epochs import TrainingRun
from model.progress import Progress
from model.tasks.load import load_task
from model.tasks.task import Task


class StageError(RuntimeError):
    """A stage broke a promise (a changed float function, an artifact that reloads differently)."""


@dataclass(frozen=True)
class Context:
    """Where a node runs: the store, the packed data, the checkpoint to load, and the torch device.

    ``network`` and ``task`` are files of the user's own, where the grid has them. ``stall_s``: a stage that makes no
    progress for so many seconds ends its process (None: never). With a ``remote`` the paths are those of the driver's
    copy of it, and every machine has its own. ``cache`` is where training keeps its images. ``devices`` are those that
    the command line names, beside this machine.
    """

    storage: Path
    pack: Path
    checkpoint: Path | None = None
    device: str = "cpu"
    network: Path | None = None
    task: Path | None = None
    stall_s: float | None = None
    remote: Remote | None = None
    cache: str = "auto"
    devices: tuple[Device, ...] = ()

    def device_called(self, label: str) -> Device:
        """A device by the value of the setting; raises StageError where the command line names none."""
        for device in self.devices:
            if device.label == label:
                return device
        raise StageError(f"device {label!r} is unknown: --device names it")

    def stages(self) -> StageStore:
        """The store of finished stages."""
        return StageStore(self.storage, self.remote)

    def here(self) -> "Context":
        """The context as this machine has it; files that it lacks are fetched from the remote."""
        remote = self.remote
        if remote is None or remote.root == self.storage:
            return self

        def fetched(file: Path) -> Path:
            return remote.pull_file(file.relative_to(self.storage).as_posix())

        checkpoint, network, task = (file and fetched(file) for file in (self.checkpoint, self.network, self.task))
        pack = fetched(self.pack)
        return dataclasses.replace(
            self, storage=remote.root, pack=pack, checkpoint=checkpoint, network=network, task=task
        )


@dataclass
class Outcome:
    """What a stage hands back beside its files: figures, what was asserted, and figures by epoch."""

    metrics: dict[str, Any] = field(default_factory=dict)
    asserted: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Work:
    """All that a stage function gets: its node, the folders of its inputs by role, and where to write."""

    node: Node
    inputs: dict[str, Path]
    out: Path
    scratch: Path
    store: StageStore
    context: Context
    progress: Progress

    @property
    def pack(self) -> Pack:
        """The packed data."""
        return Pack(self.context.pack)

    @property
    def task(self) -> Task:
        """What is learned from the data; raises InputError where its file is another one by now."""
        return load_task(self.pack.task, self.context.task)

    @property
    def device(self) -> torch.device:
        """Where training and calibration run."""
        return torch.device(self.context.device)

    @property
    def training_run(self) -> TrainingRun:
        """What a training stage has beside its network and its spec."""
        seed = int(self.node.settings["seed"] or 0)
        return TrainingRun(
            self.pack, seed, self.device, self.scratch, self.progress, self.context.cache, task=self.task
        )

    def record(self, role: str) -> dict[str, Any]:
        """The record of the input in this role."""
        return self.store.record(self.inputs[role].name)

    def group(self, name: str) -> Any:
        """The spec of one settings group of this node."""
        return read_group(self.node.settings, name)


def write_outcome(out: Path, node: Node, outcome: Outcome, seconds: float, stage: str | None = None) -> None:
    """Write the record of a computed stage into its folder; ``stage``: its name, where it is not the node's."""
    write_record(
        out,
        {
            "stage": stage or node.stage,
            "settings": dict(node.settings),
            "inputs": [list(pair) for pair in node.inputs],
            "metrics": outcome.metrics,
            "asserted": outcome.asserted,
            "history": outcome.history,
            "seconds": seconds,
        },
    )
