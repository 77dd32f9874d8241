"""More truth of the built-in pictures: what each pixel shows, and which furniture most of them."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from model.data.frame import Frame
from model.data.rooms.render import SEED, VIEWS_PER_SCENE, draw_scene, render_view
from model.data.rooms.scene import Scene

SURFACES = (
    "wall", "floor", "ceiling", "window", "door", "picture", "seat", "table", "storage", "bed", "plant", "other",
)  # fmt: skip
"""A rug is floor, a curtain belongs to its window; lamps, screens, radiators and small things are other."""
FURNITURE = ("seat", "table", "storage", "bed")
_SHELL = ("ceiling", "floor", "wall", "wall", "wall", "wall")  # the codes -6 .. -1 of ``cast``


@dataclass(frozen=True, eq=False)
class LabelledFrame:
    """A picture with its depth, and for each pixel (S x S) the index in ``SURFACES`` of what it shows."""

    frame: Frame
    mask: NDArray[np.uint8]

    @property
    def main_furniture(self) -> int:
        """The index in ``FURNITURE`` of what most pixels show; 0 in the rare picture that shows none."""
        return int(np.argmax([(self.mask == SURFACES.index(name)).sum() for name in FURNITURE]))


def labelled_frame(split: str, index: int, size: int = 224, seed: int = SEED) -> LabelledFrame:
    """Picture ``index`` of ``split`` as ``render_frame`` gives it, with its labels; a function of its arguments."""
    scene_number, view = divmod(index, VIEWS_PER_SCENE)
    scene = _scene(split, scene_number, seed)
    frame, seen = render_view(scene, split, scene_number, view, size, seed)
    return LabelledFrame(frame, surface_mask(scene, seen))


_scene = lru_cache(maxsize=1)(draw_scene)  # pictures read in order show the same scene several times


def surface_mask(scene: Scene, seen: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Indices in ``SURFACES`` of what the rays of ``cast`` hit, in the same shape."""
    labels = (*(solid.label for solid in scene.solids), *_SHELL)  # a negative code counts from the end
    return np.array([SURFACES.index(label) for label in labels], np.uint8)[seen]


class RoomsDataset(Dataset[LabelledFrame]):
    """The first ``count`` labelled pictures of a split, rendered when they are read; in order is cheapest."""

    def __init__(self, split: str, count: int, size: int = 224, seed: int = SEED) -> None:
        self.split, self.count, self.size, self.seed = split, count, size, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> LabelledFrame:
        return labelled_frame(self.split, range(self.count)[index], self.size, self.seed)
