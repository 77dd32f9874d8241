"""Pairs of pictures: ``input`` has what is degraded, ``target`` how it should look, under the same names.

Both folders are in the data's own folder, and the splits are drawn, or in its folders train, val and test.
"""

import functools
from pathlib import Path

from torch import Tensor

from model.data.folders.dataset import FolderSplit, Item
from model.data.folders.listing import note_of
from model.data.folders.pairs import paired_splits
from model.data.folders.pictures import read_picture, require_same_size
from model.data.folders.splits import Draw


def picture_pairs(
    data: Path, size: int, val_fraction: float = 0.1, test_fraction: float = 0.1, seed: int = 0
) -> dict[str, FolderSplit]:
    """The splits train, val and test of pairs, each the centre of both pictures at their own resolution.

    Nothing is resized, which would change the degradation: an item raises InputError where a picture is smaller than
    ``size``, or the two differ in size. Raises InputError where a picture has no partner, or a split has none.
    """
    items, found, notes = paired_splits(data, "input", "target", Draw(val_fraction, test_fraction, seed))
    read = functools.partial(_read, size=size)
    note = note_of(found, *notes)
    return {
        split: FolderSplit("restoration", data, size, of_split, read, note=note) for split, of_split in items.items()
    }


def _read(root: Path, item: Item, size: int) -> tuple[Tensor, Tensor]:
    paths = [root / file.name for file in item.files]
    first, second = (read_picture(path, size, "none") for path in paths)
    require_same_size(paths[0], first.whole, paths[1], second.whole)
    return first.pixels, second.pixels
