"""Classification: what an image shows, as one of several classes.

Images in ImageFolder layout (``CLASS/*.jpg``, in ``train``, ``val`` and ``test`` or undivided), or the built-in
rooms, of which it says what furniture they show most of.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from model.data.augment import augment_images, random_resized_crops
from model.data.folders.classification import class_folders
from model.data.pack import PackSpec
from model.data.rooms.labels import FURNITURE, LabelledFrame
from model.data.rooms.views import RoomViews
from model.tasks.drawing import GREY, RIGHT, WRONG, captioned, pictures_of
from model.tasks.panels import Panels
from model.tasks.task import ImageMetric

VERSION = 2  # raise it when the same data give other figures
NETWORK = "torchvision/mobilenet_v3_small"
MONITOR = "cross_entropy"
"""Of a few validation images top-1 is too coarse to choose an epoch with."""
SETTINGS = {"qat.distillation": 1.0}
"""Labels of images that the float network knows by heart teach QAT little; its probabilities teach more."""
_LEAST_AREA = 0.5


def datasets(data: str, spec: PackSpec) -> Mapping[str, Dataset[Any]]:
    """Images uint8 3 x S x S with the number of their class."""
    if data == "rooms":
        return RoomViews.by_split(spec, _furniture, FURNITURE)
    return class_folders(Path(data), spec.input_size, spec.val_fraction, spec.test_fraction)


def _furniture(view: LabelledFrame) -> tuple[Tensor, int]:
    return torch.from_numpy(view.frame.image), view.main_furniture


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of logits N x classes."""
    return functional.cross_entropy(outputs, targets)


def distillation(outputs: Tensor, taught: Tensor) -> Tensor:
    """Cross entropy with the float network's probabilities (Hinton et al. 2015, arXiv:1503.02531)."""
    return functional.cross_entropy(outputs, taught.softmax(1))


def metrics() -> dict[str, ImageMetric]:
    """Whether the class of the highest logit is right, and the cross entropy, which sees more than that."""
    return {
        "top1": ImageMetric(lambda outputs, targets: outputs.argmax(1) == targets, True, "top-1", 0.005),
        "cross_entropy": ImageMetric(_cross_entropy, False, "cross entropy", 0.02, margin_is_relative=True),
    }


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, targets, reduction="none")


def augment(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Parts of the images, mirrored and coloured."""
    return random_resized_crops(augment_images(images), _LEAST_AREA), targets


def show(inputs: Tensor, outputs: Tensor | None, targets: Tensor, classes: tuple[str, ...] = ()) -> Panels:
    """Each image with its class; with outputs that of the highest logit and its probability, orange where wrong."""
    pictures, truth = pictures_of(inputs), targets.tolist()
    if outputs is None:
        named = [captioned(one, [_name(classes, own)], GREY) for one, own in zip(pictures, truth, strict=True)]
        return {"true class": np.stack(named)}
    chances, found = (one.tolist() for one in outputs.float().softmax(1).max(1))
    panels = []
    for picture, own, place, chance in zip(pictures, truth, found, chances, strict=True):
        lines = [f"{_name(classes, place)} {chance:.2f}"]
        if place != own:
            lines.append(f"not {_name(classes, own)}")
        panels.append(captioned(picture, lines, RIGHT if place == own else WRONG))
    return {"found class": np.stack(panels)}


def _name(classes: tuple[str, ...], place: int) -> str:
    return classes[place] if place < len(classes) else f"class {place}"
