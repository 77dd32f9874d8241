"""Restoration: the clean image of a noisy or otherwise degraded one.

Pairs of images in two folders (``input`` and ``target``), or the built-in rooms with the noise of a camera.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from model.data.augment import flip_together
from model.data.folders.restoration import picture_pairs
from model.data.pack import PackSpec
from model.data.rooms.labels import LabelledFrame
from model.data.rooms.render import VIEWS_PER_SCENE
from model.data.rooms.sensor_noise import noise_rng, noisy
from model.data.rooms.views import RoomViews
from model.images import IMAGENET_MEAN, IMAGENET_STD, normalize
from model.tasks.drawing import pictures_of
from model.tasks.panels import Panels
from model.tasks.task import ImageMetric

VERSION = 1  # raise it when the same data give other figures
CHANNELS, LAYERS = 32, 5
_AMPLIFIED = 4


class Restorer(nn.Module):
    """An image plus what convolutions at half its size find to add (as in FFDNet: Zhang et al. 2018, arXiv:1710.04026).

    N x 3 x H x W to the same, both normalized; H and W are even.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(12, CHANNELS, 3, padding=1), nn.ReLU()]
        for _ in range(LAYERS - 2):
            conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(CHANNELS), nn.ReLU()]
        self.smaller, self.larger = nn.PixelUnshuffle(2), nn.PixelShuffle(2)
        self.layers = nn.Sequential(*layers, nn.Conv2d(CHANNELS, 12, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        """The restored images."""
        change: Tensor = self.larger(self.layers(self.smaller(images)))
        return images + change


def build(input_size: int) -> nn.Module:
    """The network of this task, for images of any even size."""
    return Restorer()


def datasets(data: str, spec: PackSpec) -> Mapping[str, Dataset[Any]]:
    """Degraded and clean images, both uint8 3 x S x S."""
    if data == "rooms":
        return RoomViews.by_split(spec, _pair)
    return picture_pairs(Path(data), spec.input_size, spec.val_fraction, spec.test_fraction)


def _pair(view: LabelledFrame) -> tuple[Tensor, Tensor]:
    _, split, scene, number = view.frame.source.split("/")
    clean = view.frame.image
    degraded = noisy(clean, noise_rng(split, int(scene) * VIEWS_PER_SCENE + int(number)))
    return torch.from_numpy(degraded), torch.from_numpy(clean)


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute error, on the scale of normalized images."""
    return functional.l1_loss(outputs, normalize(targets))


def distillation(outputs: Tensor, taught: Tensor) -> Tensor:
    """Mean absolute distance to the float network's images."""
    return functional.l1_loss(outputs, taught)


def metrics() -> dict[str, ImageMetric]:
    """Peak signal to noise ratio of each image, and the mean absolute error in levels of 255."""
    return {
        "psnr_db": ImageMetric(psnr_db, True, "PSNR dB", 0.1),
        "mae_levels": ImageMetric(_mae_levels, False, "MAE levels", 0.01, margin_is_relative=True),
    }


def psnr_db(outputs: Tensor, targets: Tensor) -> Tensor:
    """10 log10(1 / mean squared error) of images in 0..1, clipped to that range, [N]."""
    return -10.0 * _errors(outputs, targets).square().flatten(1).mean(1).clamp_min(1e-10).log10()


def _mae_levels(outputs: Tensor, targets: Tensor) -> Tensor:
    return 255.0 * _errors(outputs, targets).abs().flatten(1).mean(1)


def _errors(outputs: Tensor, targets: Tensor) -> Tensor:
    """Of images in 0..1, float64."""
    truth = normalize(targets)
    std = torch.tensor(IMAGENET_STD, dtype=torch.float64).view(1, 3, 1, 1)
    low, high = (normalize(torch.full_like(targets[:1], level)) for level in (0, 255))
    return (outputs.clamp(low, high) - truth).double() * std


def augment(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Both mirrored; colours stay, as the degradation depends on them."""
    mirrored, truth = flip_together(images, targets)
    return mirrored.float(), truth


def show(inputs: Tensor, outputs: Tensor | None, targets: Tensor) -> Panels:
    """The degraded and the clean image; with outputs the restored one, and its error over all colours, amplified."""
    if outputs is None:
        return {"degraded": pictures_of(inputs), "clean": pictures_of(targets)}
    mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in (IMAGENET_MEAN, IMAGENET_STD))
    levels = (255.0 * (outputs.float() * std + mean)).clamp(0, 255)
    error = _AMPLIFIED * (levels - targets).abs().mean(1, keepdim=True).expand_as(levels)
    panels = {"restored": levels, f"error x {_AMPLIFIED}": error.clamp(0, 255)}
    return {name: pictures_of(panel.round().to(torch.uint8)) for name, panel in panels.items()}
