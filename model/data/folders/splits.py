"""Training, validation and test pictures: from folders of these names, or drawn by the names of the files.

A file is drawn by the hash of its own name, so that a new one never moves another to another split. The price is that
a split has its share of all pictures, and of each class, only by and large.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from model.data.folders.dataset import Item
from model.data.folders.listing import subfolders
from model.data.folders.pictures import shown
from model.data.frame import SPLITS
from model.errors import InputError, require_fraction

WHOLE = ""
"""In place of a split's name: all pictures, where they are in no split folders."""


@dataclass(frozen=True)
class Draw:
    """Which shares of all pictures are for validation and test, and the seed of the draw."""

    val_fraction: float
    test_fraction: float
    seed: int

    def __post_init__(self) -> None:
        for name in ("val_fraction", "test_fraction"):
            require_fraction(f"data.{name}", getattr(self, name))
        if self.val_fraction + self.test_fraction >= 1:
            value = f"{self.val_fraction} + {self.test_fraction}"
            raise InputError("data.test_fraction", "leaves nothing to train on", "a sum below 1", value=value)


def split_folders(data: Path) -> tuple[tuple[str, ...], str]:
    """Which of train, val and test the data has as folders, and a note on those beside them; none is ``(WHOLE,)``.

    Raises InputError where train is missing, or all but train.
    """
    present = subfolders(data)
    splits = tuple(split for split in SPLITS if split in present)
    if not splits:
        return (WHOLE,), ""
    expected = "train with val or test, or none of these folders"
    if "train" not in splits:
        raise InputError(shown(data), f"has a folder {splits[0]}, but none called train", expected)
    if len(splits) == 1:
        hint = "Without a folder train, the splits are drawn: move what is in it one folder up."
        raise InputError(shown(data), "has a folder train, but neither val nor test", expected, hint)
    others = ", ".join(name for name in present if name not in splits)
    return splits, f"folders beside train are not read: {others}" if others else ""


def into_splits(data: Path, found: Mapping[str, list[Item]], draw: Draw) -> tuple[dict[str, tuple[Item, ...]], str]:
    """The items of train, val and test, of those found by split folder, and a note on what is drawn.

    Raises InputError where a split has none.
    """
    if WHOLE in found:
        items, note = _drawn(found[WHOLE], draw, draw.test_fraction), "val and test are drawn by the names of the files"
    elif "val" in found and "test" in found:
        items, note = dict(found), ""
    elif "test" in found:
        items = _drawn(found["train"], draw, 0) | {"test": found["test"]}
        note = "there is no folder val: val is drawn out of train"
    else:
        items = _drawn(found["train"], draw, 0) | {"test": found["val"]}
        note = "there is no folder test: the folder val is the test, and val is drawn out of train"
    for split in SPLITS:
        if not items[split]:
            count = sum(map(len, found.values()))
            hint = "Add pictures, or set data.val_fraction or data.test_fraction higher."
            raise InputError(shown(data), f"has no picture for {split} of {count} in all", "one at least", hint)
    return {split: tuple(items[split]) for split in SPLITS}, note


def _drawn(items: list[Item], draw: Draw, test_fraction: float) -> dict[str, list[Item]]:
    drawn: dict[str, list[Item]] = {split: [] for split in SPLITS}
    for item in items:
        place = _place(item.name, draw.seed)
        test, val = place < test_fraction, place < test_fraction + draw.val_fraction
        drawn["test" if test else "val" if val else "train"].append(item)
    return drawn


def _place(name: str, seed: int) -> float:
    """A number in [0, 1) that the name and the seed alone decide."""
    digest = hashlib.sha256(f"{seed}\0{name}".encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48
