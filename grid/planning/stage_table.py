"""The one table of stages: what each is called, when a cell has it, what it reads, what it costs, what computes it.

To add a stage, add a row here and write the function that the row names (in ``grid.stages``). Planning, scheduling,
estimates, progress, metrics and result rows all read this table.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from grid.planning import columns
from grid.planning.output_files import (
    ANALYSIS_CSV,
    ANALYSIS_ERRORS,
    ANALYSIS_JSON,
    ANALYSIS_RANGES,
    LATENCIES,
    OPERATORS,
    PER_IMAGE,
    SAMPLES,
)
from grid.space.settings import Flat, is_on
from quant.engines.catalog import is_exported

CPU, GPU, PROFILER = "cpu", "gpu", "profiler"
"""Where a stage runs: on CPUs, on a GPU where the cluster has one, or in the actor that measures."""


@dataclass
class Chain:
    """The stages of one cell as far as they are planned: node ids, for the inputs of the next stage."""

    nodes: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, dict[str, str]] = field(default_factory=dict)
    network: str | None = None
    root: str | None = None
    root_test: str | None = None

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


def _loaded(settings: Flat, given: bool) -> bool:
    return given or settings["train.init"] == "checkpoint"


def _trained(settings: Flat, given: bool) -> bool:
    return not given or settings["train.init"] == "checkpoint"


def _quantized(settings: Flat, given: bool) -> bool:
    return settings["method"] != "fp32"


def _calibrated(settings: Flat, given: bool) -> bool:
    return settings["method"] in ("ptq", "ptq+qat")


def _fine_tuned(settings: Flat, given: bool) -> bool:
    return settings["method"] in ("qat", "ptq+qat")


STAGES: tuple[Stage, ...] = (
    Stage(
        "load",
        "grid.stages.float_network:load_float",
        belongs=_loaded,
        settings=("network",),
        inputs=lambda chain: {},
        reads_data=False,
        reads_checkpoint=True,
        makes_root=True,
        seconds=0.2,
    ),
    Stage(
        "train",
        "grid.stages.float_network:train_float",
        belongs=_trained,
        settings=("network", "train", "seed"),
        inputs=lambda chain: {"network": chain.network},
        version=3,
        makes_root=True,
        device=GPU,
        trains="train",
        seconds=0.3,
        columns=columns.training,
    ),
    Stage(
        "fuse",
        "grid.stages.float_network:fuse_batchnorm",
        belongs=lambda settings, given: bool(settings["fuse_bn"]),
        inputs=lambda chain: {"network": chain.network},
    ),
    Stage(
        "equalize",
        "grid.stages.float_network:equalize_channels",
        belongs=_quantized,
        switch="equalize",
        # The objective ``weights`` needs neither images nor granularity; one list for all objectives is simpler.
        settings=("granularity", "equalize", "calibrate.images", "calibrate.outlier_ratio", "seed"),
        inputs=lambda chain: {"network": chain.network},
        version=2,
        seconds=30.0,
    ),
    Stage(
        "calibrate",
        "grid.stages.quantize:calibrate_ranges",
        belongs=_calibrated,
        settings=("granularity", "calibrate", "seed"),
        inputs=lambda chain: {"network": chain.network},
        version=4,
        device=GPU,
        images="calibrate.images",
        counts_images=True,
        seconds=0.06,
    ),
    Stage(
        "round",
        "grid.stages.quantize:round_weights",
        belongs=_calibrated,
        switch="rounding",
        settings=("rounding", "seed"),
        inputs=lambda chain: {"network": chain.network, "calibrated": chain.nodes["calibrate"]},
        implied=("calibrated",),
        device=GPU,
        images="rounding.images",
        seconds=1.0,
    ),
    Stage(
        "correct_bias",
        "grid.stages.quantize:correct_biases",
        belongs=_calibrated,
        switch="bias_correction",
        settings=("bias_correction",),
        inputs=lambda chain: {
            "network": chain.network,
            "original": chain.nodes["calibrate"] if "round" in chain.nodes else None,
            "calibrated": chain.nodes["calibrate"],
        },
        implied=("calibrated",),
        device=GPU,
        images="bias_correction.images",
        seconds=0.6,
    ),
    Stage(
        "mix",
        "grid.stages.quantize:choose_float_sites",
        belongs=_calibrated,
        switch="mixed_precision",
        settings=("mixed_precision", "seed"),
        inputs=lambda chain: {"network": chain.network, "original": chain.nodes["calibrate"]},
        images="mixed_precision.images",
        seconds=1.0,
        columns=columns.mixture,
    ),
    Stage(
        "finetune",
        "grid.stages.quantize:finetune_quantized",
        belongs=_fine_tuned,
        # A cold start (method qat) initializes its ranges by the rules of calibrate as well.
        settings=("granularity", "calibrate", "qat", "seed"),
        # Fine-tuning also learns from the float network's predictions.
        inputs=lambda chain: {"network": chain.network, "teacher": chain.root, "mixed": chain.nodes.get("mix")},
        implied=("mixed",),
        version=3,
        device=GPU,
        trains="qat",
        seconds=0.4,
        columns=columns.training,
    ),
    Stage(
        "convert",
        "grid.stages.quantize:convert_network",
        belongs=lambda settings, given: _quantized(settings, given) or is_exported(str(settings["engine"])),
        settings=("engine",),
        inputs=lambda chain: {"network": chain.network},
        seconds=4.0,
        columns=columns.conversion,
        folder_column="artifact",
    ),
    Stage(
        "evaluate",
        "grid.stages.accuracy:evaluate",
        inputs=lambda chain: {
            "network": chain.network,
            "reference": chain.root_test if chain.network != chain.root else None,
            "simulated": chain.simulated(),
        },
        implied=("simulated",),
        version=2,
        gives_network=False,
        counts_images=True,
        seconds=18.0,
        columns=columns.accuracy,
        artifacts=(SAMPLES, PER_IMAGE),
    ),
    Stage(
        "profile",
        "grid.stages.measure:profile",
        settings=("latency",),
        inputs=lambda chain: {"network": chain.network, "reference": chain.root},
        version=2,
        gives_network=False,
        device=PROFILER,
        seconds=8.0,
        columns=columns.latency,
        artifacts=(OPERATORS, LATENCIES),
    ),
    Stage(
        "analyze",
        "grid.stages.quantize:analyze_sites",
        belongs=_quantized,
        switch="analyze",
        settings=("analyze", "seed"),
        # Fine-tuning trains the weights: behind it no other network has the original ones.
        inputs=lambda chain: {
            "network": chain.simulated(),
            "original": None if "finetune" in chain.nodes else chain.nodes["calibrate"],
        },
        gives_network=False,
        images="analyze.images",
        seconds=5.0,
        folder_column="analysis",
        artifacts=(ANALYSIS_CSV, ANALYSIS_JSON, ANALYSIS_ERRORS, ANALYSIS_RANGES),
        keyed=False,
    ),
)
"""All stages, in the order in which a cell runs them."""


def stage_named(name: str) -> Stage:
    """The row of a stage; raises KeyError for a name that no row has."""
    for stage in STAGES:
        if stage.name == name:
            return stage
    raise KeyError(name)


def stage_names() -> tuple[str, ...]:
    """The names of all stages, in their order."""
    return tuple(stage.name for stage in STAGES)
