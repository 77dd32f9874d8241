"""What a pack holds, arrays by name for every item, and a picture with its depth as every source gives it."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import InputError
from model.images import MAX_DEPTH_M

SPLITS = ("train", "val", "test")
Layout = Mapping[str, tuple[str, tuple[int, ...]]]
"""The dtype and the shape of each array of an item, by name, in their order."""
Parts = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Item:
    """One item of a pack: its arrays by name, its scene and its source."""

    parts: Parts
    scene: str
    source: str


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture (3 x S x S, uint8, RGB), its z-depth in metres (S/4 x S/4, float32), its scene and source."""

    image: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    scene: str
    source: str


def depth_layout(size: int) -> Layout:
    """Of pictures of ``size`` x ``size`` with their depth in millimetres."""
    return {"image": ("uint8", (3, size, size)), "depth": ("uint16", (size // 4, size // 4))}


def depth_items(frames: Generator[Frame | InputError]) -> Generator[Item | InputError]:
    """Frames as a pack holds them; closes ``frames`` where it is left early."""
    try:
        for frame in frames:
            yield frame if isinstance(frame, InputError) else _item(frame)
    finally:
        frames.close()


def _item(frame: Frame) -> Item:
    depth_mm = np.rint(np.clip(frame.depth_m, 0, MAX_DEPTH_M) * 1000).astype(np.uint16)
    return Item({"image": frame.image, "depth": depth_mm}, frame.scene, frame.source)


def empty(layout: Layout) -> dict[str, NDArray[Any]]:
    """Arrays of one item, to read into."""
    return {name: np.empty(shape, dtype) for name, (dtype, shape) in layout.items()}


def item_bytes(layout: Layout) -> int:
    """Bytes of one item."""
    return sum(int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize for dtype, shape in layout.values())
