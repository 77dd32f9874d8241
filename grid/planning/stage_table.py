"""The one table of stages: what each is called, when a cell has it, what it reads, what it costs, what computes it.

To add a stage, add a row here and write the function that the row names (in ``grid.stages``). Planning, scheduling,
estimates, progress, metrics and result rows all read this table.
"""

from grid.planning import belongs, columns
from grid.planning.output_files import (
    ANALYSIS_CSV,
    ANALYSIS_ERRORS,
    ANALYSIS_JSON,
    ANALYSIS_RANGES,
    INSPECTION,
    LATENCIES,
    OPERATOR_TIMES,
    OPERATORS,
    PER_IMAGE,
    SAMPLES,
)
from grid.planning.stage import DEVICE, GPU, PROFILER, Stage
from grid.space.settings import LOCAL
from quant.engines.catalog import is_exported

STAGES: tuple[Stage, ...] = (
    Stage(
        "load",
        "grid.stages.float_network:load_float",
        belongs=belongs.loaded,
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
        belongs=belongs.trained,
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
        "merge",
        "grid.stages.float_network:merge_parallel_branches",
        belongs=lambda settings, given: bool(settings["merge_branches"]),
        inputs=lambda chain: {"network": chain.network},
        makes_root=True,
    ),
    Stage(
        "fuse",
        "grid.stages.float_network:fuse_batchnorm",
        belongs=lambda settings, given: bool(settings["fuse_bn"]),
        inputs=lambda chain: {"network": chain.network},
    ),
    Stage(
        "widths",
        "grid.stages.float_network:choose_weight_widths",
        belongs=belongs.narrow,
        # All later stages learn the widths from its network. It equalizes itself where it looks for the worst layers.
        settings=(
            "weight_bits",
            "keep_8bit",
            "granularity",
            "equalize",
            "calibrate.images",
            "calibrate.outlier_ratio",
            "seed",
        ),
        inputs=lambda chain: {"network": chain.network},
        seconds=1.0,
        columns=columns.widths,
    ),
    Stage(
        "equalize",
        "grid.stages.float_network:equalize_channels",
        # The control of QAT trains the network that QAT trains.
        belongs=lambda settings, given: belongs.quantized(settings, given) or belongs.is_control(settings, given),
        switch="equalize",
        # The objective ``weights`` needs neither images nor granularity; one list for all objectives is simpler.
        settings=("granularity", "equalize", "calibrate.images", "calibrate.outlier_ratio", "seed"),
        inputs=lambda chain: {"network": chain.network},
        device=GPU,
        version=2,
        seconds=30.0,
    ),
    Stage(
        "calibrate",
        "grid.stages.quantize:calibrate_ranges",
        belongs=belongs.calibrated,
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
        belongs=belongs.calibrated,
        switch="rounding",
        settings=("rounding", "seed"),
        inputs=lambda chain: {"network": chain.network, "calibrated": chain.nodes["calibrate"]},
        implied=("calibrated",),
        version=2,
        device=GPU,
        images="rounding.images",
        seconds=1.0,
    ),
    Stage(
        "correct_bias",
        "grid.stages.quantize:correct_biases",
        belongs=belongs.calibrated,
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
        belongs=belongs.calibrated,
        switch="mixed_precision",
        settings=("mixed_precision", "seed"),
        inputs=lambda chain: {"network": chain.network, "original": chain.nodes["calibrate"]},
        version=2,
        images="mixed_precision.images",
        seconds=1.0,
        columns=columns.mixture,
    ),
    Stage(
        "finetune",
        "grid.stages.quantize:finetune_quantized",
        belongs=belongs.fine_tuned,
        # A cold start (method qat) initializes its ranges by the rules of calibrate as well.
        settings=("granularity", "calibrate", "qat", "seed"),
        # Fine-tuning also learns from the float network's predictions.
        # From calibrated ranges it starts towards what the rounding found off the grid.
        inputs=lambda chain: {
            "network": chain.network,
            "teacher": chain.root,
            "mixed": chain.nodes.get("mix"),
            "rounded": chain.nodes.get("round"),
        },
        implied=("mixed", "rounded"),
        version=4,
        device=GPU,
        trains="qat",
        seconds=0.4,
        columns=columns.finetuning,
    ),
    Stage(
        "finetune_float",
        "grid.stages.float_network:finetune_float",
        belongs=belongs.is_control,
        settings=("granularity", "calibrate", "qat", "seed"),
        inputs=lambda chain: {"network": chain.network, "teacher": chain.root},
        version=2,
        device=GPU,
        trains="qat",
        seconds=0.3,
        columns=columns.training,
    ),
    Stage(
        "convert",
        "grid.stages.quantize:convert_network",
        belongs=lambda settings, given: belongs.quantized(settings, given) or is_exported(str(settings["engine"])),
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
        # The control has the operators of the folded float network.
        belongs=lambda settings, given: settings["device"] == LOCAL and not belongs.is_control(settings, given),
        settings=("latency", "float_runtime"),
        inputs=lambda chain: {"network": chain.network, "reference": chain.root},
        version=3,
        gives_network=False,
        device=PROFILER,
        seconds=8.0,
        columns=columns.latency,
        artifacts=(OPERATORS, OPERATOR_TIMES, LATENCIES),
    ),
    Stage(
        "profile_on_device",
        "grid.stages.devices.on_device:profile_on_device",
        belongs=lambda settings, given: settings["device"] != LOCAL and not belongs.is_control(settings, given),
        settings=("device", "device_accuracy", "device_reference", "latency"),
        inputs=lambda chain: {"network": chain.network, "simulated": chain.simulated(), **chain.floats},
        implied=("simulated",),
        gives_network=False,
        device=DEVICE,
        seconds=60.0,
        columns=columns.on_device,
        artifacts=(LATENCIES,),
    ),
    Stage(
        "estimate_npu",
        "grid.stages.devices.npu:estimate_npu",
        belongs=belongs.has_npu,
        settings=("npu",),
        inputs=lambda chain: {"network": chain.network},
        gives_network=False,
        seconds=15.0,
        columns=columns.npu,
    ),
    Stage(
        "analyze",
        "grid.stages.quantize:analyze_sites",
        belongs=belongs.quantized,
        switch="analyze",
        settings=("analyze", "seed"),
        # Fine-tuning trains the weights: behind it no other network has the original ones.
        inputs=lambda chain: {
            "network": chain.simulated(),
            "original": None if "finetune" in chain.nodes else chain.nodes["calibrate"],
        },
        gives_network=False,
        images="analyze.images",
        seconds=25.0,
        folder_column="analysis",
        artifacts=(ANALYSIS_CSV, ANALYSIS_JSON, ANALYSIS_ERRORS, ANALYSIS_RANGES, INSPECTION),
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
