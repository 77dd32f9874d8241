"""Which common networks become int8 networks, how much of each, and what that costs: 36 of torchvision and timm.

``python -m benchmarks.zoo [NAME ...]``; names are ``torchvision/...`` and ``timm/...``. Weights are random, with
BatchNorm statistics of noise, as no weights can be downloaded here. So the figures say what the tool does
with each operator, and how closely the int8 network follows its simulation, not how accurate a trained network would
be. Each network has a process of its own, on one core: fused, equalized, calibrated, converted for qnnpack, and run.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.line import say
from model.metrics import sqnr_db
from model.network.named import named_network
from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.equalization.equalize import equalize
from quant.inspection.inspection import with_plain_outputs
from quant.inspection.on_qnnpack import on_qnnpack
from quant.inspection.operators import operators, weights_of
from quant.inspection.placement import int8_macs, int8_weights
from quant.recipe import CalibrateSpec, EqualizeSpec
from quant.tracing.trace import fuse_bn

TORCHVISION = (
    *("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "resnet18", "resnet50", "regnet_y_400mf"),
    *("squeezenet1_1", "mnasnet1_0", "efficientnet_b0", "efficientnet_v2_s", "densenet121", "googlenet"),
    *("shufflenet_v2_x1_0", "fcn_resnet50", "lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"),
    *("vit_b_16", "convnext_tiny", "swin_t"),
)
TIMM = (
    *("mobilenetv4_conv_small", "repvgg_a0", "ghostnet_100", "mobileone_s0", "fastvit_t8", "hardcorenas_a"),
    *("tinynet_e", "lcnet_050", "rexnet_100", "levit_128s", "efficientformerv2_s0", "edgenext_xx_small"),
    *("starnet_s1", "deit_tiny_patch16_224", "mobilevit_xxs", "efficientvit_b0", "repvit_m1"),
)
NAMES = (*(f"torchvision/{name}" for name in TORCHVISION), *(f"timm/{name}" for name in TIMM))
LARGE = ("vit_b_16", "deit_tiny_patch16_224", "levit_128s", "efficientformerv2_s0")
"""Networks of one input size only."""
SMALL_SIZE, LARGE_SIZE, IMAGES = 96, 224, 8


@torch.no_grad()
def settle(network: nn.Module, images: Tensor) -> nn.Module:
    """Statistics of the images in every BatchNorm, weights where they are zero (a head may be); in eval mode."""
    for parameter in network.parameters():
        if parameter.dim() > 1 and not parameter.any():
            nn.init.trunc_normal_(parameter, std=0.02)
    network.train()
    for _ in range(3):
        network(images)
    return network.eval()


def measure(name: str) -> dict[str, Any]:
    """Take one network all the way; its figures."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    size = LARGE_SIZE if name.rpartition("/")[2] in LARGE else SMALL_SIZE
    images = torch.randn(IMAGES, 3, size, size, generator=torch.Generator().manual_seed(1))
    network = settle(named_network(name, size, "zoo"), images)
    seconds, started = {}, time.monotonic()

    def lap(stage: str) -> None:
        nonlocal started
        seconds[stage], started = time.monotonic() - started, time.monotonic()

    float_network = with_plain_outputs(fuse_bn(network, images[:1]), images[:1])
    lap("fuse")
    balanced = equalize(float_network, EqualizeSpec(images=4), images, "per_channel")
    lap("equalize")
    prepared = calibrate(balanced, "per_channel", CalibrateSpec(), images)
    lap("calibrate")
    int8 = qnnpack.convert(prepared)
    lap("convert")
    listed, placement = operators(prepared, images[:1]), on_qnnpack(prepared, images[:1])
    with torch.no_grad():
        given, simulated = network(images), prepared(images)
        exact = given["out"] if isinstance(given, dict) else given
        shipped = torch.cat([int8(image) for image in images.split(1)])
    return {
        "macs": int8_macs(placement, listed) / sum(one.macs for one in listed),
        "weights": int8_weights(placement, listed) / weights_of(network),
        "simulated_db": sqnr_db(exact, simulated),
        "shipped_db": sqnr_db(exact, shipped),
        "agreement_db": sqnr_db(simulated, shipped),
        "seconds": seconds,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="torchvision/NAME or timm/NAME; none: all 36")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    names = options.names or NAMES
    through = 0
    for name in names:
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.zoo", "--one", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            say(f"zoo {name}", 0.0, "", f"refused: {(done.stderr.strip() or 'no message').splitlines()[-1][:160]}")
            continue
        found, through = json.loads(done.stdout.splitlines()[-1]), through + 1
        spent = ", ".join(f"{stage} {value:.1f} s" for stage, value in found["seconds"].items())
        figures = f"{100 * found['weights']:.1f} % of weights; SQNR {found['simulated_db']:.1f} dB simulated, "
        figures += f"{found['shipped_db']:.1f} in int8, {found['agreement_db']:.1f} between; {spent}; "
        say(f"zoo {name}", 100 * found["macs"], "% of MACs in int8", f"{figures}{found['peak_gb']:.1f} GB")
    say("zoo_through", through, "networks", f"of {len(names)}; goal 32 of 36")


if __name__ == "__main__":
    main()
