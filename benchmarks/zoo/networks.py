"""The networks of the benchmark, trained for a short while on rooms, as no weights can be downloaded here."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.subject import rendered
from benchmarks.zoo.training import train
from model.images import normalize
from model.network.named import named_network

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
TRANSFORMERS = (
    *("vit_b_16", "swin_t", "deit_tiny_patch16_224", "levit_128s", "efficientformerv2_s0", "mobilevit_xxs"),
    "efficientvit_b0",
)
"""Networks with attention, whose products of two activations have no int8 kernel."""
_LARGE = ("vit_b_16", "deit_tiny_patch16_224", "levit_128s", "efficientformerv2_s0")
"""Networks of one input size only."""
_SMALL_SIZE, _LARGE_SIZE = 96, 224
CALIBRATION, MEASURED = 16, 16
_TRAIN = 512


class FirstOutput(nn.Module):
    """A network that gives its main output alone: "out" of a dictionary."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """NxCxHxW to what the network gives."""
        given = self.network(images)
        found: Tensor = given["out"] if isinstance(given, dict) else given
        return found


def rooms(folder: Path) -> dict[str, Tensor]:
    """Rendered rooms for training (and, of them, calibration) and for measuring: pictures and depth as in a pack."""
    pack = rendered(folder, _TRAIN, MEASURED)
    return {
        "train": pack.images("train"),
        "depth": pack.targets("train"),
        "measured": pack.images("test"),
    }


@dataclass(frozen=True)
class Subject:
    """A trained network in eval mode, normalized pictures N x 3 x S x S of its size, and how its training went.

    ``error`` is the last squared error of its training in parts of the variance of the depth.
    """

    network: nn.Module
    calibration: Tensor
    measured: Tensor
    steps: int
    error: float


def subject(name: str, pictures: dict[str, Tensor], seconds: float) -> Subject:
    """Build the network, and train it for so long."""
    size = _LARGE_SIZE if name.rpartition("/")[2] in _LARGE else _SMALL_SIZE
    images, measured = (_sized(pictures[part], size) for part in ("train", "measured"))
    torch.manual_seed(0)
    network = FirstOutput(named_network(name, size, "zoo"))
    for parameter in network.parameters():
        if parameter.dim() > 1 and not parameter.any():  # a head may start with zeros
            nn.init.trunc_normal_(parameter, std=0.02)
    steps, error = train(network, images, pictures["depth"], seconds)
    return Subject(network, images[:CALIBRATION], measured, steps, error)


def _sized(images: Tensor, size: int) -> Tensor:
    return torch.cat(
        [F.interpolate(normalize(part), (size, size), mode="bilinear", antialias=True) for part in images.split(64)]
    )
