"""The settings of one cell: nested frozen specs for code, one flat dict of JSON scalars for all else."""

import dataclasses
import functools
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from model.errors import InputError, require_one_of, require_range
from model.network.spec import NetworkSpec
from model.training import TrainSpec
from quant.engines.catalog import FLOAT_RUNTIMES, NO_NPU, NPUS, ON_DEVICES
from quant.recipe import (
    ENGINES,
    GRANULARITIES,
    LEAST_BITS,
    METHODS,
    MOST_BITS,
    AnalyzeSpec,
    BiasCorrectionSpec,
    CalibrateSpec,
    EqualizeSpec,
    Keep8BitSpec,
    MixedPrecisionSpec,
    QatSpec,
    RoundingSpec,
)

LOCAL = "local"
"""The device that is the machine the grid runs on, where its profiling actor measures."""
Scalar = bool | int | float | str | None
Flat = dict[str, Scalar]
REPLACED = {
    "qat.learning_rate": "Set qat.travel, the steps of its integer grid that a weight can move in the whole "
    "training; 1e-4 was a travel of 0.2 in the default grid.",
    "mixed_precision.max_ssim_loss": "Set mixed_precision.max_metric_loss: of the task's first metric, for depth SSIM.",
}
"""Settings of before that have no present name -> what to do."""


@dataclass(frozen=True)
class LatencySpec:
    """How two networks are timed: in ``loads`` fresh loads, for ``seconds`` in all, in turns.

    Each load is a process that loads both, runs ``warmup`` pairs unmeasured, and then measures for its share of the
    seconds (at least 5 pairs): a fixed plan, whatever the figures look like.
    """

    seconds: float = 3.0
    loads: int = 5
    warmup: int = 3
    threads: int = 1

    def __post_init__(self) -> None:
        require_range("latency.seconds", self.seconds, 0.0)
        require_range("latency.loads", self.loads, 3)
        require_range("latency.warmup", self.warmup, 0)
        require_range("latency.threads", self.threads, 1)


@dataclass(frozen=True)
class Settings:
    """One cell, fully resolved; a group that may be ``None`` is a stage that may be off.

    ``merge_branches`` makes one convolution of branches that a network was trained with, where it has any.
    ``float_runtime`` is how PyTorch runs a float network that is timed: int8 networks and files ignore it.
    ``device`` is where latency is measured, ``device_reference`` the engine whose float file others are compared with
    there, and ``device_accuracy`` says whether the whole test set runs there, too. ``npu`` is an accelerator for which
    its compiler estimates what files of ``litert`` would take.
    """

    fuse_bn: bool = False
    granularity: str = "per_channel"
    method: str = "ptq"
    weight_bits: int = 8
    engine: str = "qnnpack"
    float_runtime: str = "eager"
    device: str = LOCAL
    device_reference: str = ON_DEVICES[0]
    device_accuracy: bool = False
    npu: str = NO_NPU
    merge_branches: bool = True
    seed: int = 0
    network: NetworkSpec = field(default_factory=NetworkSpec)
    train: TrainSpec = field(default_factory=TrainSpec)
    keep_8bit: Keep8BitSpec = field(default_factory=Keep8BitSpec)
    equalize: EqualizeSpec | None = field(default_factory=EqualizeSpec)
    calibrate: CalibrateSpec = field(default_factory=CalibrateSpec)
    rounding: RoundingSpec | None = field(default_factory=RoundingSpec)
    bias_correction: BiasCorrectionSpec | None = None  # rounding takes out mean errors as well
    mixed_precision: MixedPrecisionSpec | None = None
    qat: QatSpec = field(default_factory=QatSpec)
    latency: LatencySpec = field(default_factory=LatencySpec)
    analyze: AnalyzeSpec | None = None

    def __post_init__(self) -> None:
        require_one_of("granularity", self.granularity, GRANULARITIES)
        require_one_of("method", self.method, METHODS)
        require_range("weight_bits", self.weight_bits, LEAST_BITS, MOST_BITS)
        require_one_of("engine", self.engine, ENGINES)
        require_one_of("float_runtime", self.float_runtime, FLOAT_RUNTIMES)
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.device):
            expected = "local, or letters, digits, '.', '_' and '-', as --device names it"
            raise InputError("device", "is no name of a device", expected, value=repr(self.device))
        require_one_of("device_reference", self.device_reference, ON_DEVICES)
        require_one_of("npu", self.npu, (NO_NPU, *NPUS))
        require_range("seed", self.seed, 0, 2**32 - 1)


def field_types(spec: type) -> dict[str, Any]:
    """Field name -> type of a spec dataclass; TypeError for a type that no JSON scalar can hold."""
    hints = typing.get_type_hints(spec)
    kinds = {item.name: hints[item.name] for item in dataclasses.fields(spec)}
    for name, kind in kinds.items():
        parts = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
        if not set(parts) <= {bool, int, float, str, type(None)}:
            raise TypeError(f"{spec.__name__}.{name} is a {kind}, but a setting must be a JSON scalar")
    return kinds


@functools.cache
def groups() -> dict[str, tuple[type, bool]]:
    """Group name -> (its spec, whether it may be off), in the order of Settings."""
    found = {}
    for name, kind in typing.get_type_hints(Settings).items():
        parts = typing.get_args(kind) or (kind,)
        for part in filter(dataclasses.is_dataclass, parts):
            found[name] = (typing.cast(type, part), type(None) in parts)
    return found


@functools.cache
def setting_types() -> dict[str, Any]:
    """Dotted key -> type of every setting; a group that may be off is itself a bool, on or off.

    What the data of a task say is no setting.
    """
    kinds: dict[str, Any] = {}
    for name, kind in typing.get_type_hints(Settings).items():
        if name not in groups():
            kinds[name] = kind
            continue
        spec, optional = groups()[name]
        if optional:
            kinds[name] = bool
        told = getattr(spec, "TOLD_BY_DATA", ())
        kinds |= {f"{name}.{key}": part for key, part in field_types(spec).items() if key not in told}
    return kinds


def flatten(settings: Settings) -> Flat:
    """Settings as dotted JSON scalars (``qat.epochs``); a group that is off is one key with None."""
    flat: Flat = {}
    for name in (item.name for item in dataclasses.fields(settings)):
        value = getattr(settings, name)
        if value is not None and name in groups():
            flat |= {f"{name}.{key}": part for key, part in dataclasses.asdict(value).items()}
        else:
            flat[name] = value
    return flat


def is_on(flat: Mapping[str, Any], group: str) -> bool:
    """Whether an optional group is on: where it is off, flat settings hold its bare name, with None."""
    return group not in flat


def switch_of(relevant: Mapping[str, Any], group: str) -> bool | None:
    """Whether a group is on, in settings of which some may be missing; None where they do not have it."""
    if group in relevant:
        return False
    return True if any(key.startswith(f"{group}.") for key in relevant) else None


def read_group(flat: Mapping[str, Any], name: str) -> Any:
    """The spec of one group (``qat`` gives a QatSpec) out of flat settings, or None where the group is off.

    Raises KeyError for a missing field: a stage must state what it reads in the stage table.
    """
    spec, optional = groups()[name]
    if optional and name in flat:
        return None
    return spec(**{key: flat[f"{name}.{key}"] for key in field_types(spec)})


def resolve(base: Flat, chosen: Flat) -> Flat:
    """Flat settings with the ``chosen`` axis values set; ``{"equalize": False}`` takes that group out."""
    flat = {**base, **chosen}
    for name, (_, optional) in groups().items():
        if optional and name in flat and not flat.pop(name):
            flat = {key: value for key, value in flat.items() if not key.startswith(f"{name}.")}
            flat[name] = None
    return flat
