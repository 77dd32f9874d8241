"""The networks of the benchmark, and the pictures that they see; no weights can be downloaded here."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.subject import pictures
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
IMAGES = 8


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


def rooms(folder: Path) -> Tensor:
    """IMAGES normalized pictures of rendered rooms, N x 3 x 224 x 224; made in ``folder``."""
    return pictures(folder, IMAGES, 1)[0]


def subject(name: str, images: Tensor) -> tuple[nn.Module, Tensor]:
    """A network in eval mode with random weights, and the images in its size, whose statistics its BatchNorms have."""
    size = _LARGE_SIZE if name.rpartition("/")[2] in _LARGE else _SMALL_SIZE
    images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
    torch.manual_seed(0)
    return FirstOutput(_settle(named_network(name, size, "zoo"), images)), images


@torch.no_grad()
def _settle(network: nn.Module, images: Tensor) -> nn.Module:
    """Statistics of the images in every BatchNorm, weights where they are zero (a head may be); in eval mode."""
    for parameter in network.parameters():
        if parameter.dim() > 1 and not parameter.any():
            nn.init.trunc_normal_(parameter, std=0.02)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1.0
        elif isinstance(module, nn.Dropout):
            module.p = 0.0
    network.train()
    network(images)
    return network.eval()
