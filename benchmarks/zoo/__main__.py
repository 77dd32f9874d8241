"""Which common networks become int8 networks, how much of each, and what that costs: 36 of torchvision and timm.

``python -m benchmarks.zoo [NAME ...]``; names are ``torchvision/...`` and ``timm/...``. Weights are random, with
BatchNorm statistics of noise, as no weights can be downloaded here. So the figures say what the tool does
with each operator, and how closely the int8 network follows its simulation, not how accurate a trained network would
be. Each network has a process of its own, on one core: fused, equalized, calibrated, converted for qnnpack, and run.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import time
import warnings
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.ao.nn.quantized import Conv2d
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.line import say
from model.metrics import sqnr_db
from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.equalization.equalize import equalize
from quant.prepare import quant_convs
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


class Segmentation(nn.Module):
    """The map of a torchvision segmentation network, out of its dictionary."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Nx3xHxW to NxCxHxW."""
        maps: Tensor = self.network(images)["out"]
        return maps


def build(name: str) -> nn.Module:
    """A network of the zoo with random weights."""
    torch.manual_seed(0)
    library, _, model = name.partition("/")
    if library == "timm":
        import timm

        network: nn.Module = timm.create_model(model, pretrained=False)
        return network
    import torchvision

    options: dict[str, Any] = {"googlenet": {"aux_logits": False, "init_weights": False}}.get(model, {})
    if model.startswith(("fcn", "deeplab", "lraspp")):
        options = {"weights_backbone": None} | ({} if model.startswith("lraspp") else {"aux_loss": False})
    network = torchvision.models.get_model(model, weights=None, **options)
    return Segmentation(network) if "weights_backbone" in options else network


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
    network = settle(build(name), images)
    seconds, started = {}, time.monotonic()

    def lap(stage: str) -> None:
        nonlocal started
        seconds[stage], started = time.monotonic() - started, time.monotonic()

    float_network = fuse_bn(network, images[:1])
    lap("fuse")
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        float_network(images[:1])  # the graph: a network's own fast paths are not counted
    started = time.monotonic()
    balanced = equalize(float_network, EqualizeSpec(images=4), images, "per_channel")
    lap("equalize")
    prepared = calibrate(balanced, "per_channel", CalibrateSpec(), images)
    lap("calibrate")
    int8 = qnnpack.convert(prepared)
    lap("convert")
    with torch.no_grad():
        exact, simulated = network(images), prepared(images)
        shipped = torch.cat([int8(image) for image in images.split(1)])
    in_int8 = {module_name for module_name, module in int8.named_modules() if isinstance(module, Conv2d)}
    return {
        "macs": 2 * int8_macs(prepared, images[:1], in_int8) / counted.get_total_flops(),
        "weights": sum(quant_convs(prepared)[item].conv.weight.numel() for item in in_int8)
        / sum(parameter.numel() for parameter in network.parameters() if parameter.dim() > 1),
        "simulated_db": sqnr_db(exact, simulated),
        "shipped_db": sqnr_db(exact, shipped),
        "agreement_db": sqnr_db(simulated, shipped),
        "seconds": seconds,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


@torch.no_grad()
def int8_macs(prepared: fx.GraphModule, image: Tensor, names: set[str]) -> int:
    """Multiplications and additions of the named convolutions for one image."""
    total = 0

    def add(module: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal total
        total += output.numel() * math.prod(module.conv.weight.shape[1:])  # type: ignore[union-attr, operator]

    hooks = [module.register_forward_hook(add) for name, module in quant_convs(prepared).items() if name in names]
    prepared(image)
    for hook in hooks:
        hook.remove()
    return total


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
