"""How fast is our int8 network on QNNPACK beside what PyTorch's stock FX conversion makes of the same float network?

Both have weights with one scale a tensor, as is its default, are calibrated on the same pictures and run in turns, one
thread, batch 1. Prints the ratio and the share of time that both spend inside the same QNNPACK convolutions, which no
conversion can change. ``--tables FOLDER`` writes torch's operator tables of both.
"""

import argparse
import copy
import tempfile
import warnings
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.ao.quantization import get_default_qconfig_mapping
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
from torch.profiler import ProfilerActivity, profile

from benchmarks.line import say
from benchmarks.subject import float_network, pictures
from grid.scheduling.cores import own_cores, pinned
from grid.space.settings import LatencySpec
from grid.stages.latency import measure_loads, profile_operators, quiet
from model.noise import sqnr_db
from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.equalization.equalize import equalize
from quant.recipe import CalibrateSpec, EqualizeSpec
from quant.tracing.trace import fuse_bn

SECONDS = 20.0
CONVOLUTIONS = ("quantized::conv2d", "quantized::conv2d_relu")


def main(folder: Path | None) -> None:
    """Build the three networks, compare them, print the figures."""
    qnnpack.use_engine_()
    with tempfile.TemporaryDirectory() as scratch:
        calibration, test = pictures(Path(scratch), 16, 16)
    network = float_network()
    stock = _stock(network, calibration)
    ours = {
        "scaled SiLU": _ours(
            equalize(fuse_bn(network), EqualizeSpec(images=8), calibration, "per_tensor"), calibration
        ),
        "plain SiLU": _ours(fuse_bn(network), calibration),
    }
    with pinned(own_cores()[:1]):
        with torch.inference_mode():
            reference = network(test)
            say("sqnr_db stock FX", sqnr_db(reference, stock(test)), "dB", "its float network")
            for name, int8 in ours.items():
                say(f"sqnr_db ours, {name}", sqnr_db(reference, int8(test)), "dB", "its float network")
        spec = LatencySpec(seconds=SECONDS)
        for name, int8 in ours.items():
            found = measure_loads(partial(copy.deepcopy, (int8, stock)), test[:1], spec)
            against = f"stock FX conversion, {found.ratio_low:.3f} to {found.ratio_high:.3f}; goal 0.9"
            say(f"int8 latency ours, {name}", found.ratio, "ratio", against)
        found = measure_loads(partial(copy.deepcopy, (stock, network)), test[:1], spec)
        say("int8 latency stock FX", found.ratio, "ratio", "eager float network")
        say(
            "time in QNNPACK convolutions",
            _share(stock, test[:1]),
            "share",
            "stock FX conversion, all of its operators",
        )
        for name, int8 in {"stock": stock, **ours}.items():
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"operators {name}.txt").write_text(profile_operators(int8, test[:1])[1])


def _stock(network: nn.Module, calibration: torch.Tensor) -> nn.Module:
    """The FX conversion as PyTorch's tutorial has it, on its default QNNPACK configuration."""
    prepared = prepare_fx(copy.deepcopy(network), get_default_qconfig_mapping("qnnpack"), (calibration[:1],))
    with torch.inference_mode():
        prepared(calibration)
    return convert_fx(prepared)


def _ours(network: nn.Module, calibration: torch.Tensor) -> nn.Module:
    return qnnpack.convert(calibrate(network, "per_tensor", CalibrateSpec(), calibration))


def _share(network: nn.Module, example: torch.Tensor) -> float:
    """Of the operators' own time the part inside the quantized convolutions."""
    with quiet(1), profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(10):
            network(example)
    times = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    return sum(times[name] for name in CONVOLUTIONS) / sum(times.values())


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=Path, metavar="FOLDER", help="write the operator tables there")
    main(parser.parse_args().tables)
