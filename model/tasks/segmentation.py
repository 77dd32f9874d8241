"""Semantic segmentation: the class of every pixel.

Images and masks in two folders (``images`` and ``masks``), or the surfaces of the built-in rooms.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset
from torchvision.models import mobilenet_v3_small
from torchvision.models.segmentation.lraspp import LRASPPHead

from model.data.augment import augment as augment_with_map
from model.data.folders.segmentation import masked_pictures
from model.data.pack import PackSpec
from model.data.rooms.labels import SURFACES, LabelledFrame
from model.data.rooms.views import RoomViews
from model.tasks.drawing import WRONG, coloured, pictures_of
from model.tasks.panels import Panels, fitted
from model.tasks.task import ImageMetric

VERSION = 1  # raise it when the same data give other figures
IGNORED = 255
"""The class of pixels that count for nothing."""
_LOW, _HIGH = 3, 12
"""The stages of MobileNetV3-small whose outputs, of an eighth and of a sixteenth of the size, the head reads."""


def build(input_size: int, classes: int) -> nn.Module:
    """LR-ASPP on MobileNetV3-small (Howard et al. 2019, arXiv:1905.02244): N x 3 x S x S to N x classes x S x S."""
    return Segmenter(classes)


class Segmenter(nn.Module):
    """torchvision's backbone, dilated, and head, without the dict around its one output."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        features = mobilenet_v3_small(weights=None, dilated=True).features
        self.low, self.high = features[: _LOW + 1], features[_LOW + 1 :]
        low, high = features[_LOW].out_channels, features[_HIGH].out_channels
        self.head = LRASPPHead(low, high, classes, 128)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the size of the images."""
        low = self.low(images)
        logits: Tensor = self.head({"low": low, "high": self.high(low)})
        return functional.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)


def datasets(data: str, spec: PackSpec) -> Mapping[str, Dataset[Any]]:
    """Images uint8 3 x S x S with the class of each pixel, uint8 S x S."""
    if data == "rooms":
        return RoomViews.by_split(spec, _mask, SURFACES)
    return masked_pictures(Path(data), spec.input_size, spec.val_fraction, spec.test_fraction)


def _mask(view: LabelledFrame) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(view.frame.image), torch.from_numpy(view.mask)


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of logits N x classes x H x W, over all pixels that count."""
    return functional.cross_entropy(outputs, targets.long(), ignore_index=IGNORED)


def distillation(outputs: Tensor, taught: Tensor) -> Tensor:
    """Cross entropy with the float network's probabilities (Hinton et al. 2015, arXiv:1503.02531)."""
    return functional.cross_entropy(outputs, taught.softmax(1))


def metrics() -> dict[str, ImageMetric]:
    """Mean intersection over union of each image alone, and the share of its pixels that are right."""
    return {
        "miou": ImageMetric(image_miou, True, "mIoU", 0.005),
        "pixel_accuracy": ImageMetric(pixel_accuracy, True, "pixel accuracy", 0.005),
    }


def image_miou(outputs: Tensor, targets: Tensor) -> Tensor:
    """Intersection over union, as a mean over the classes that an image or its prediction has, [N].

    Of each image alone (Wang et al. 2023, arXiv:2310.19252), so that figures of images can be compared and resampled.
    """
    classes, found = outputs.shape[1], outputs.argmax(1)
    counts = targets != IGNORED
    figures = []
    for own, truth, known in zip(found, targets.long(), counts, strict=True):
        pairs = torch.bincount(own[known] * classes + truth[known], minlength=classes**2).reshape(classes, classes)
        both, either = pairs.diagonal(), pairs.sum(0) + pairs.sum(1) - pairs.diagonal()
        figures.append((both[either > 0] / either[either > 0]).double().mean())
    return torch.stack(figures)


def pixel_accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of the pixels that count whose class is right, [N]."""
    known = targets != IGNORED
    right = (outputs.argmax(1) == targets) & known
    return right.flatten(1).sum(1).double() / known.flatten(1).sum(1)


def augment(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Mirrored and coloured images, and mirrored masks."""
    coloured, masks = augment_with_map(images, targets[:, None])
    return coloured, masks[:, 0]


def show(inputs: Tensor, outputs: Tensor | None, targets: Tensor, classes: tuple[str, ...] = ()) -> Panels:
    """Each image, and its true classes in colour; with outputs the classes that were found, and where they are wrong.

    Pixels that count for nothing are black in the last.
    """
    pictures, truth = pictures_of(inputs), fitted(targets.to(torch.uint8).numpy(), smooth=False)
    if outputs is None:
        return {"image": pictures, "true classes": coloured(pictures, truth, classes)}
    found = fitted(outputs.argmax(1).to(torch.uint8).numpy(), smooth=False)
    known = truth != IGNORED
    grey = np.repeat(pictures.mean(3, keepdims=True), 3, axis=3) * known[..., None]
    wrong = (found != truth) & known
    errors = np.where(wrong[..., None], 0.25 * grey + 0.75 * np.array(WRONG), grey).astype(np.uint8)
    return {"found classes": coloured(pictures, found, classes), "wrong pixels": errors}
