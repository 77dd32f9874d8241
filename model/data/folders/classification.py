"""Pictures in a folder for each class (torchvision's ImageFolder), with or without folders for the splits.

Either ``train/CLASS/...`` with ``val/CLASS/...``, ``test/CLASS/...`` or both, or ``CLASS/...``, out of which the splits
are drawn. Folders below a class belong to it.
"""

import functools
from collections import Counter
from pathlib import Path

from torch import Tensor

from model.data.folders.dataset import FolderSplit, Item
from model.data.folders.listing import SUFFIXES, Found, list_pictures, note_of, require_folder, subfolders
from model.data.folders.pictures import read_picture, shown
from model.data.folders.splits import Draw, into_splits, split_folders
from model.errors import InputError

_LAYOUT = "a folder for each class, or train, val and test with one for each"


def class_folders(
    data: Path, size: int, val_fraction: float = 0.1, test_fraction: float = 0.1, seed: int = 0
) -> dict[str, FolderSplit]:
    """The splits train, val and test of pictures by class; targets are indices into the sorted names of the classes.

    Inputs are the centre of the picture whose shorter side is resized to ``size`` / 0.875. Raises InputError where the
    folders are none of classes, a class is empty, val or test has one that train lacks, or a split has no picture.
    """
    draw = Draw(val_fraction, test_fraction, seed)
    require_folder(data, _LAYOUT)
    folders, beside = split_folders(data)
    classes = _classes(data, data / folders[0])
    found = {folder: list_pictures(data, folder) for folder in folders}
    labelled = {folder: _labelled(data, folder, found[folder], classes) for folder in folders}
    loose = sum(len(found[folder].pictures) - len(labelled[folder]) for folder in folders)
    items, drawn = into_splits(data, labelled, draw)
    lost = [name for index, name in enumerate(classes) if index not in {item.label for item in items["train"]}]
    note = note_of(
        found.values(),
        drawn,
        beside,
        f"left out: {loose} pictures in no class's folder" if loose else "",
        f"train has no picture of {', '.join(lost)}" if lost else "",
    )
    read = functools.partial(_read, size=size)
    return {
        split: FolderSplit("classification", data, size, of_split, read, classes, note)
        for split, of_split in items.items()
    }


def _read(root: Path, item: Item, size: int) -> tuple[Tensor, int]:
    return read_picture(root / item.name, size, "shorter side").pixels, item.label


def _classes(data: Path, folder: Path) -> tuple[str, ...]:
    classes = subfolders(folder)
    if len(classes) < 2:
        problem = f"has one folder only ({classes[0]})" if classes else "has no folder of a class"
        raise InputError(shown(folder), problem, _LAYOUT, "Is the data set one folder further down?" if classes else "")
    return classes


def _labelled(data: Path, folder: str, found: Found, classes: tuple[str, ...]) -> list[Item]:
    """The pictures in folders of classes; raises InputError where a folder is empty, or of a class that train lacks."""
    depth = len(Path(folder).parts)
    index = {name: number for number, name in enumerate(classes)}
    own = subfolders(data / folder)
    if unknown := [name for name in own if name not in index]:
        where, hint = shown(data / folder / unknown[0]), "Add it to train, or remove it."
        raise InputError(where, "is a class that train lacks", hint=hint, value=repr(unknown[0]), options=classes)
    items = []
    for picture in found.pictures:
        parts = Path(picture.name).parts
        if len(parts) > depth + 1:
            items.append(Item((picture,), index[parts[depth]]))
    filled = Counter(item.label for item in items)
    if empty := [name for name in own if not filled[index[name]]]:
        where = shown(data / folder / empty[0])
        raise InputError(where, "holds no picture", f"files ending in {', '.join(SUFFIXES)}", "Remove it, or fill it.")
    return items
