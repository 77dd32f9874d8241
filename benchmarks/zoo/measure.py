"""One network taken all the way on each engine, and by stock tools, with what that costs."""

import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from benchmarks.lite0 import stock
from benchmarks.lite0.ours import logits
from benchmarks.zoo.networks import subject
from model.noise import sqnr_db
from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.engines.catalog import missing
from quant.engines.exported import ExportedNetwork, export, file_name
from quant.equalization.equalize import equalize
from quant.inspection.inspection import ENGINES, first_line, with_plain_outputs
from quant.inspection.operators import operators, weights_of
from quant.inspection.placement import int8_macs, int8_weights
from quant.recipe import CalibrateSpec, EqualizeSpec, RoundingSpec
from quant.tracing.branches import merge_branches
from quant.tracing.trace import fuse_bn
from quant.weight_rounding.rounding import round_weights_optq

STOCK = ("ONNX Runtime static", "pt2e x86")
_ORT_SETTING = "per channel, MinMax, QInt8"


@dataclass
class Engine:
    """What became of the network on one engine: shares of MACs and of weights in int8, and SQNR in dB.

    ``apart_db`` is the SQNR between the engine and the simulation; ``refused`` the reason where it took none.
    """

    macs: float = 0.0
    weights: float = 0.0
    sqnr_db: float = 0.0
    apart_db: float = 0.0
    refused: str | None = None


@dataclass
class Network:
    """Everything about one network; ``seconds`` and ``peak_gb`` (resident, of the process) are by stage.

    ``steps`` and ``error`` are of its training: see ``Subject``.
    """

    name: str
    steps: int
    error: float
    macs: int = 0
    simulated_db: float = 0.0
    engines: dict[str, Engine] = field(default_factory=dict)
    stock_db: dict[str, float | str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_gb: dict[str, float] = field(default_factory=dict)


class _Stages:
    """Time and peak of resident memory of one stage after the other."""

    def __init__(self, found: Network) -> None:
        self.found = found

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        started = time.monotonic()
        yield
        self.found.seconds[name] = time.monotonic() - started
        (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        self.found.peak_gb[name] = int(peak) / 1e6


def measure(name: str, pictures: dict[str, Tensor], train_s: float) -> dict[str, Any]:
    """Train one network, take it all the way on one core, and put it on every engine; as plain values.

    Raises UnsupportedNetworkError where the network cannot be taken apart.
    """
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    trained = subject(name, pictures, train_s)
    network, images, measured = trained.network, trained.calibration, trained.measured
    found = Network(name, steps=trained.steps, error=trained.error)
    stages = _Stages(found)
    with stages.stage("fuse"):
        merged = merge_branches(network, images[:1])
        float_network = with_plain_outputs(fuse_bn(merged), images[:1])
    with stages.stage("equalize"):
        balanced = equalize(float_network, EqualizeSpec(), images, "per_channel")
    with stages.stage("calibrate"):
        prepared = calibrate(balanced, "per_channel", CalibrateSpec(), images)
    with stages.stage("round"):
        rounded = round_weights_optq(prepared, RoundingSpec(), images, seed=0)[0]
    with torch.no_grad():
        exact, simulated = network(measured), rounded(measured)
    found.macs = sum(one.macs for one in operators(rounded, images[:1]))
    found.simulated_db = sqnr_db(exact, simulated)
    for engine in ENGINES:
        found.engines[engine] = _on(engine, rounded, measured, exact, simulated)
    for tool in STOCK:
        found.stock_db[tool] = _stock(tool, network, images, measured, exact)
    return asdict(found)


@torch.no_grad()
def _on(engine: str, prepared: fx.GraphModule, images: Tensor, exact: Tensor, simulated: Tensor) -> Engine:
    if reason := missing(engine):
        return Engine(refused=reason)
    try:
        listed, placement = operators(prepared, images[:1]), ENGINES[engine](prepared, images[:1])
        with tempfile.TemporaryDirectory() as folder:
            given = logits(_network(engine, prepared, images.shape[-1], Path(folder)), images)
    except Exception as error:  # an exporter or a runtime may fail in any way, and the others have their figures
        return Engine(refused=f"{type(error).__name__}: {first_line(error)}")
    return Engine(
        macs=int8_macs(placement, listed) / sum(one.macs for one in listed),
        weights=int8_weights(placement, listed) / weights_of(prepared),
        sqnr_db=sqnr_db(exact, given),
        apart_db=sqnr_db(simulated, given),
    )


def _network(engine: str, prepared: fx.GraphModule, size: int, folder: Path) -> Callable[[Tensor], Tensor]:
    if engine == qnnpack.ENGINE:
        return qnnpack.convert(prepared)
    path = folder / file_name(engine)
    export(prepared, engine, torch.zeros(1, 3, size, size), path)
    return ExportedNetwork(engine, path)


def _stock(tool: str, network: nn.Module, images: Tensor, measured: Tensor, exact: Tensor) -> float | str:
    """The SQNR of the same float network from another tool, calibrated on the same images, or why there is none."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            if tool == STOCK[0]:
                source, path = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
                stock.float_onnx(network, images[:1], source)
                given = logits(stock.onnxruntime(source, images, path, stock.ORT_SETTINGS[_ORT_SETTING]), images)
            else:
                given = logits(stock.pt2e(network, images, "x86"), measured)
    except Exception as error:  # as above
        return f"{type(error).__name__}: {first_line(error)}"
    return sqnr_db(exact, given)
