"""The built-in rooms as torch Datasets for tasks beside depth."""

from collections.abc import Callable
from typing import Any

from torch.utils.data import Dataset

from model.data.frame import SPLITS
from model.data.pack import PackSpec
from model.data.rooms.labels import LabelledFrame, RoomsDataset
from model.data.rooms.render import SEED, VERSION, VIEWS_PER_SCENE


class RoomViews(Dataset[Any]):
    """The views of one split, each as ``item`` makes an input and a target of it; ``classes`` are names of classes."""

    def __init__(
        self, views: RoomsDataset, item: Callable[[LabelledFrame], tuple[Any, Any]], classes: tuple[str, ...]
    ) -> None:
        self.views, self.item, self.classes = views, item, classes
        self.identity = [VERSION, SEED, views.split, len(views), views.size]
        self.groups = tuple(f"{views.split}/{index // VIEWS_PER_SCENE}" for index in range(len(views)))

    @classmethod
    def by_split(
        cls, spec: PackSpec, item: Callable[[LabelledFrame], tuple[Any, Any]], classes: tuple[str, ...] = ()
    ) -> dict[str, "RoomViews"]:
        """As many views of each split as ``spec`` asks for."""
        counts = (spec.rooms_train, spec.rooms_val, spec.rooms_test)
        views = {
            split: RoomsDataset(split, count, spec.input_size) for split, count in zip(SPLITS, counts, strict=True)
        }
        return {split: cls(found, item, classes) for split, found in views.items()}

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.item(self.views[index])
