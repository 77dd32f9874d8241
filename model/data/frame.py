"""One picture with its depth, as every source hands it to the pack."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture (3 x S x S, uint8, RGB), its z-depth in metres (S/4 x S/4, float32), its scene and source."""

    image: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    scene: str
    source: str
