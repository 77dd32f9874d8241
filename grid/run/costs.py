"""How long stages take: from those in the store, else from figures measured once; for dry runs and the time left."""

import statistics
from collections.abc import Iterable
from itertools import islice

from grid.planning.plan import Flat, Node, Plan
from grid.storage.result_store import StageStore

SECONDS_A_UNIT = {
    "load": 0.2, "train": 0.3, "fuse": 1.0, "equalize": 30.0, "calibrate": 0.06, "round": 1.0, "correct_bias": 0.6,
    "mix": 1.0, "finetune": 0.4, "convert": 4.0, "evaluate": 13.0, "profile": 8.0, "analyze": 5.0,
}  # fmt: skip
"""One core of a 2-core Xeon, the network at 224 x 224, the test set of the default grid. A unit is in ``_units``."""
_COUNTED = {
    "calibrate": "calibrate.images",
    "round": "rounding.images",
    "correct_bias": "bias_correction.images",
    "analyze": "analyze.images",
    "mix": "mixed_precision.images",
}
_MOST_RECORDS = 500


class Costs:
    """Estimated seconds of stages: the median rate of the same stage so far, times its pictures."""

    def __init__(self, store: StageStore, train_images: int) -> None:
        self.store, self.train_images = store, train_images
        self.rates: dict[str, list[float]] = {}
        self.rate = dict(SECONDS_A_UNIT)
        for record in islice(store.records(), _MOST_RECORDS):
            self._learn(record["stage"], record["settings"], record["seconds"])

    def learn(self, node: Node) -> None:
        """Take in a stage that has just been computed."""
        self._learn(node.stage, node.settings, self.store.record(node.id)["seconds"])

    def _learn(self, stage: str, settings: Flat, seconds: float) -> None:
        rates = self.rates.setdefault(stage, [])
        rates.append(seconds / self._units(stage, settings))
        self.rate[stage] = statistics.median(rates)

    def seconds(self, node: Node) -> float:
        """Of one stage, on the cores that a trial has."""
        return self.rate[node.stage] * self._units(node.stage, node.settings)

    def wall_seconds(self, plan: Plan, waiting: Iterable[str], trials: int) -> float:
        """Until the stages with these ids are done, ``trials`` at a time: their sum, or their longest chain."""
        ids = set(waiting)
        behind: dict[str, float] = {}
        total = 0.0
        for node in plan.nodes:  # inputs come first
            own = self.seconds(node) if node.id in ids else 0.0
            behind[node.id] = own + max([behind[one] for _, one in node.inputs], default=0.0)
            total += own
        return max(total / max(trials, 1), max(behind.values(), default=0.0))

    def _units(self, stage: str, settings: Flat) -> float:
        """Pictures that a stage works through, or 1 where it does not depend on a setting."""
        group = {"train": "train", "finetune": "qat"}.get(stage)
        if group:
            images = int(settings[f"{group}.images_per_epoch"] or self.train_images)
            return max(int(settings[f"{group}.epochs"] or 1) * images, 1)
        return int(settings.get(_COUNTED.get(stage, "")) or 1)


def duration(seconds: float) -> str:
    """``40 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
