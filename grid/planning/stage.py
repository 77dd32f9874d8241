"""What a row of the stage table holds, and the chain of a cell that its inputs are taken from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from grid.planning import columns
from grid.space.settings import Flat, is_on

CPU, GPU, PROFILER, DEVICE = "cpu", "gpu", "profiler", "device"
"""Where a stage runs: on CPUs, on a GPU where the cluster has one, in the actor that measures, or in a device's."""


@dataclass
class Chain:
    """The stages of one cell as far as they are planned: node ids, for the inputs of the next stage.

    ``floats`` are the float network's files for a device, by engine.
    """

    nodes: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, dict[str, str]] = field(default_factory=dict)
    network: str | None = None
    root: str | None = None
    root_test: str | None = None
    floats: Mapping[str, str] = field(default_factory=dict)

    def before(self, stage: str) -> str | None:
        """The network that a stage works on, None where the cell does not have the stage."""
        return self.inputs.get(stage, {}).get("network")

    def simulated(self) -> str | None:
        """The network with fake quantizers that the int8 network was converted from; None for a float cell."""
        return self.before("convert") if {"calibrate", "finetune"} & self.nodes.keys() else None


@dataclass(frozen=True)
class Stage:
    """One row of the table.

    ``function`` ("module:name") takes a ``Work`` and returns an ``Outcome``. A cell has the stage where ``belongs``
    (settings, whether a checkpoint is given) says so and the optional group ``switch``, if any, is on. ``settings``
    are the settings that it reads, a prefix for a whole group; with the ids of its inputs, the version and the data's
    fingerprint (``reads_data``) they make its id, so raise ``version`` where the code changes the results.
    ``inputs`` gives node ids by role (None: no such input); roles in ``implied`` follow from the ids of the others
    and are not hashed. A stage that ``gives_network`` passes a network on; the others look at one.
    Cost: ``seconds`` a unit on one core; a unit is a training step's picture for ``trains`` (the settings group with
    its epochs), a picture for ``images`` (the setting that counts them), else the whole stage. ``counts_images``: the
    steps that it reports are pictures. ``columns`` turns its record into columns of the cell's row, and
    ``folder_column`` names the column that holds its folder. ``artifacts`` are the files that MLflow keeps of it.
    ``makes_root``: what it gives is the float network that all else starts from. ``reads_checkpoint``: the SHA-256 of
    the checkpoint is one of its settings. ``keyed``: what it reads tells cells apart.
    """

    name: str
    function: str
    inputs: Callable[[Chain], Mapping[str, str | None]]
    belongs: Callable[[Flat, bool], bool] = lambda settings, given: True
    switch: str | None = None
    settings: tuple[str, ...] = ()
    implied: tuple[str, ...] = ()
    version: int = 1
    reads_data: bool = True
    gives_network: bool = True
    device: str = CPU
    seconds: float = 1.0
    trains: str | None = None
    images: str | None = None
    counts_images: bool = False
    columns: Callable[[Mapping[str, Any]], dict[str, Any]] = columns.none
    folder_column: str | None = None
    artifacts: tuple[str, ...] = ()
    makes_root: bool = False
    reads_checkpoint: bool = False
    keyed: bool = True

    def in_cell(self, settings: Flat, given: bool) -> bool:
        """Whether a cell with these settings has the stage; ``given``: a checkpoint holds its network."""
        return self.belongs(settings, given) and (self.switch is None or is_on(settings, self.switch))

    def units(self, settings: Flat, train_images: int) -> int:
        """Pictures that the stage works through, or 1; ``train_images``: the size of the split it trains on."""
        if self.trains:
            images = int(settings[f"{self.trains}.images_per_epoch"] or train_images)
            return max(int(settings[f"{self.trains}.epochs"] or 1) * images, 1)
        return int(settings.get(self.images or "") or 1)
