"""One split of a folder of pictures as a torch Dataset; the three tasks differ in how they list and read it."""

import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from model.data.folders.listing import PictureFile

VERSION = 1  # raise it when the same files give other pixels or another split


@dataclass(frozen=True, slots=True)
class Item:
    """The files of one item, the input first, and its class where it has one."""

    files: tuple[PictureFile, ...]
    label: int = -1

    @property
    def name(self) -> str:
        """The input's file, relative to the root of the data."""
        return self.files[0].name


@dataclass(frozen=True, eq=False)
class FolderSplit(Dataset[tuple[Tensor, Tensor | int]]):
    """Pairs of an input (uint8 3 x S x S, RGB) and its target, which are read when they are asked for.

    Targets are a class index (classification), uint8 S x S of class indices where 255 is to be ignored (segmentation),
    or uint8 3 x S x S (restoration). An item raises InputError where a file of it is broken. ``note`` is for the user.
    """

    task: str
    root: Path
    size: int
    items: tuple[Item, ...]
    read: Callable[[Path, Item], tuple[Tensor, Tensor | int]]
    classes: tuple[str, ...] = ()
    note: str = ""

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor | int]:
        return self.read(self.root, self.items[index])

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """The file of each input, relative to the root."""
        return tuple(item.name for item in self.items)

    @property
    def groups(self) -> tuple[str, ...]:
        """What belongs together in splits and tests: each file stands for itself."""
        return self.names

    @functools.cached_property
    def identity(self) -> list[object]:
        """What the items are known by: another list where a file, a class or the size is another one."""
        sha256 = hashlib.sha256()
        for item in self.items:
            for file in item.files:
                sha256.update(f"{file.name}\0{file.size_bytes} {file.changed_ns}\n".encode())
        # the class of a picture is in its name, the number of the class in the list of all
        sha256.update(json.dumps(self.classes).encode())
        return [self.task, VERSION, self.size, len(self.items), sha256.hexdigest()]
