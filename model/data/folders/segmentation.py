"""Pictures in ``images``, and under the same names in ``masks`` the class of every pixel.

Masks are PNG of one channel: a palette's index is the class, and so is a grey value; its colour says nothing. 255 is
to be ignored. Both folders are in the data's own folder, and the splits are drawn, or in its folders train, val, test.
"""

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps
from torch import Tensor

from model.data.folders.dataset import FolderSplit, Item
from model.data.folders.listing import note_of, raise_first
from model.data.folders.pairs import paired_splits
from model.data.folders.pictures import Picture, opened, read_picture, require_same_size, shown
from model.data.folders.splits import Draw
from model.errors import InputError

IGNORED = 255
_CLASSES = "classes.txt"
_STEP = {"L;2": 85, "L;4": 17}  # how far the classes of a PNG of 2 or 4 bits are apart once Pillow has decoded it


def masked_pictures(
    data: Path, size: int, val_fraction: float = 0.1, test_fraction: float = 0.1, seed: int = 0
) -> dict[str, FolderSplit]:
    """The splits train, val and test of pictures and their masks, both resized whole to ``size`` x ``size``.

    Classes are the lines of ``classes.txt``, or "0" to the largest index in the masks of train, which are read for it.
    An item raises InputError where a file is broken, the two differ in size, or a mask has no such class or is not one.
    Raises InputError where a picture has no mask or a mask no picture, there are no two classes, or a split is empty.
    """
    items, found, notes = paired_splits(data, "images", "masks", Draw(val_fraction, test_fraction, seed))
    errors = []
    for item in (one for of_split in items.values() for one in of_split):
        name = item.files[1].name
        if not name.lower().endswith(".png"):
            expected = "PNG, which keeps the classes as they are"
            errors.append(InputError(shown(data / name), "is no PNG", expected, "Save the mask as PNG."))
    raise_first(errors, data)
    classes = _listed(data / _CLASSES) if (data / _CLASSES).exists() else _counted(data, items["train"])
    read = functools.partial(_read, size=size, classes=len(classes))
    note = note_of(found, *notes)
    return {
        split: FolderSplit("segmentation", data, size, of_split, read, classes, note)
        for split, of_split in items.items()
    }


def _read(root: Path, item: Item, size: int, classes: int) -> tuple[Tensor, Tensor]:
    paths = [root / file.name for file in item.files]
    picture, mask = read_picture(paths[0], size), _read_mask(paths[1], size, classes)
    require_same_size(paths[0], picture.whole, paths[1], mask.whole)
    return picture.pixels, mask.pixels


def _read_mask(path: Path, size: int, classes: int) -> Picture:
    """The mask at ``size`` x ``size``, each pixel the nearest; raises InputError for classes that there are not."""
    with opened(path, ("PNG",)) as image:
        indices = _indices(path, image)
        largest = _largest(indices)
        if largest >= classes:
            hint = f"Name it in {_CLASSES}, or correct the mask."
            raise InputError(shown(path), f"has class {largest}", f"0 to {classes - 1}, or {IGNORED} to ignore", hint)
        small = Image.fromarray(indices).resize((size, size), Image.Resampling.NEAREST)
        return Picture(torch.from_numpy(np.array(small)), (indices.shape[1], indices.shape[0]))


def _indices(path: Path, image: ImageFile.ImageFile) -> NDArray[np.uint8]:
    if image.mode not in ("1", "L", "P"):
        hint = "Colours name no class: save the indices, with a palette where they should have colours."
        raise InputError(shown(path), f"is a mask of mode {image.mode}", "one channel of up to 8 bits", hint)
    step = _STEP.get(str(image.tile[0].args), 1)  # decoding forgets it
    indices: NDArray[np.uint8] = np.asarray(ImageOps.exif_transpose(image)).astype(np.uint8) // np.uint8(step)
    return indices


def _largest(indices: NDArray[np.uint8]) -> int:
    """The largest class of a mask, -1 where all is to be ignored."""
    labelled = indices[indices != IGNORED]
    return int(labelled.max()) if labelled.size else -1


def _listed(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, ValueError) as error:
        raise InputError(shown(path), f"cannot be read ({error})", "a class a line, in UTF-8") from None
    classes = tuple(line.strip() for line in lines)
    for number, name in enumerate(classes, 1):
        if not name or name in classes[: number - 1]:
            raise InputError(f"{shown(path)} line {number}", "is there twice" if name else "is empty", "a class a line")
    if not 2 <= len(classes) <= IGNORED:
        raise InputError(shown(path), f"names {len(classes)} classes", f"2 to {IGNORED}, one a line")
    return classes


def _counted(data: Path, train: tuple[Item, ...]) -> tuple[str, ...]:
    def largest(item: Item) -> int:
        path = data / item.files[1].name
        try:
            with opened(path, ("PNG",)) as image:
                return _largest(_indices(path, image))
        except InputError:  # reading the item says so
            return -1

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        most = max(pool.map(largest, train))
    if most < 1:
        hint = f"A mask of 0 and 255 has one class: save it with 0 and 1. Or name the classes in {_CLASSES}."
        raise InputError(shown(data), "has no two classes in the masks of train", "0, 1 and so on", hint)
    return tuple(str(index) for index in range(most + 1))
