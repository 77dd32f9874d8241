"""Which train images a stage calibrates on, or is checked on: un-augmented, drawn by a recorded seed."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from grid.stages.work import Work
from model.data.pack import Pack
from model.images import to_network
from quant.outliers import typical_images

CHECK_IMAGES = 8


class CalibrationImages:
    """``count`` train images, un-augmented and normalized, drawn by ``seed``; read from the pack slice by slice."""

    def __init__(self, pack: Pack, count: int, seed: int) -> None:
        order = torch.randperm(pack.size("train"), generator=torch.Generator().manual_seed(seed))
        self.pack, self.indices = pack, sorted(order[:count].tolist())

    def keep(self, positions: list[int]) -> "CalibrationImages":
        """Those at these positions alone."""
        kept = copy.copy(self)
        kept.indices = [self.indices[position] for position in positions]
        return kept

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, where: slice) -> Tensor:
        return to_network(self.pack.images("train", self.indices[where]))


def drawn_images(work: Work, network: nn.Module) -> tuple[CalibrationImages, dict[str, Any]]:
    """The images to calibrate on, and the record of which they are and which were left out as outliers."""
    settings = work.node.settings
    drawn = CalibrationImages(work.pack, int(settings["calibrate.images"] or 0), int(settings["seed"] or 0))
    kept = drawn.keep(typical_images(network, drawn, float(settings["calibrate.outlier_ratio"] or 0)))
    return kept, {"images": kept.indices, "outliers": sorted(set(drawn.indices) - set(kept.indices))}


def calibrated_on(work: Work, count: int) -> CalibrationImages:
    """The first ``count`` images of those that the network was calibrated on."""
    record = work.record("calibrated")
    images = CalibrationImages(work.pack, 0, seed=0)
    images.indices = record["asserted"]["images"][:count]
    return images


def unseen_images(work: Work, count: int, calibration: str) -> CalibrationImages | None:
    """``count`` train images that the calibration in this role did not look at, drawn by the seed; None: too few."""
    asserted = work.record(calibration)["asserted"]
    seen = {*asserted["images"], *asserted.get("outliers", ())}
    everything = CalibrationImages(work.pack, work.pack.size("train"), 0)
    unseen = everything.keep([place for place, index in enumerate(everything.indices) if index not in seen])
    if len(unseen) < count:
        return None
    order = torch.randperm(len(unseen), generator=torch.Generator().manual_seed(int(work.node.settings["seed"] or 0)))
    return unseen.keep(sorted(order[:count].tolist()))


def check_images(work: Work) -> Tensor:
    """A few real pictures on which promises are checked."""
    return CalibrationImages(work.pack, CHECK_IMAGES, seed=0)[:]
