"""Photographs of a folder as a classifier of ImageNet takes them, and which of them calibrate."""

import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from benchmarks.lite0.network import SIZE
from model.data.nyu_frames import FORMATS
from model.errors import InputError

SHORT_SIDE = 256
MEAN, DEVIATION = 127.0, 128.0
"""Of TensorFlow's EfficientNet-Lite, for all three channels."""
LEAST = 2
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm")
_COLOUR = ("RGB", "RGBA", "P", "CMYK")
CROPS, CENTRE = 10, 4
"""Of the ten crops: four corners, the centre, and all of them mirrored."""


def ten_crops(folder: Path) -> Tensor:
    """All colour pictures under ``folder`` in the order of the numbers in their paths, N x 10 x 3 x 224 x 224.

    The shorter side shrinks to 256 pixels first. Grey pictures, such as depth maps, are left out. Raises InputError
    for a folder without two pictures, and for a file that is not one.
    """
    if not folder.is_dir():
        raise InputError("--pictures", f"{folder} is no folder", "a folder of JPEG or PNG photographs")
    paths = sorted((path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES), key=_in_numbers)
    crops = [found for path in paths if (found := _read(path)) is not None]
    if len(crops) < LEAST:
        problem = f"{folder} has {len(crops)} colour pictures"
        raise InputError("--pictures", problem, f"at least {LEAST}: half of them calibrate, half are measured")
    return torch.stack(crops)


def _in_numbers(path: Path) -> list[tuple[int, str]]:
    """A key that puts 2.jpg in front of 10.jpg."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.as_posix())]


def _read(path: Path) -> Tensor | None:
    crop = v2.Compose([v2.Resize(SHORT_SIDE, InterpolationMode.BICUBIC), v2.TenCrop(SIZE)])
    try:
        with Image.open(path, formats=FORMATS) as picture:
            if picture.mode not in _COLOUR:
                return None
            pixels = torch.stack([torch.from_numpy(np.array(one)) for one in crop(picture.convert("RGB"))])
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(
            str(path), f"cannot be read ({error})", "a whole picture", "Take it out of the folder."
        ) from None
    return (pixels.permute(0, 3, 1, 2).float() - MEAN) / DEVIATION
