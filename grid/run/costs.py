"""How long stages take: from those in the store, else from figures measured once; for dry runs and the time left."""

import statistics
from collections.abc import Iterable
from itertools import islice

from grid.planning import stage_table
from grid.planning.plan import Node, Plan
from grid.space.settings import Flat
from grid.storage.result_store import StageStore

_MOST_RECORDS = 500


class Costs:
    """Estimated seconds of stages: the median rate of the same stage so far, times its pictures."""

    def __init__(self, store: StageStore, train_images: int) -> None:
        self.store, self.train_images = store, train_images
        self.rates: dict[str, list[float]] = {}
        self.stages = {stage.name: stage for stage in stage_table.STAGES}
        self.rate = {name: stage.seconds for name, stage in self.stages.items()}
        for record in islice(store.records(), _MOST_RECORDS):
            if record["stage"] in self.stages:  # and is not a measurement that several stages share
                self._learn(record["stage"], record["settings"], record["seconds"])

    def learn(self, node: Node) -> None:
        """Take in a stage that has just been computed."""
        self._learn(node.stage, node.settings, self.store.record(node.id)["seconds"])

    def _learn(self, stage: str, settings: Flat, seconds: float) -> None:
        rates = self.rates.setdefault(stage, [])
        rates.append(seconds / self.stages[stage].units(settings, self.train_images))
        self.rate[stage] = statistics.median(rates)

    def seconds(self, node: Node) -> float:
        """Of one stage, on the cores that a trial has."""
        return self.rate[node.stage] * self.stages[node.stage].units(node.settings, self.train_images)

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
