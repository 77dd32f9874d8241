"""Tune's part of a grid, played without Ray."""

import itertools
from dataclasses import dataclass, field
from typing import Any

from ray.tune.search import Searcher

from grid.planning.plan import Node, Plan
from grid.scheduling.tune import TrieSearcher
from grid.storage.result_store import StageStore
from tests.grid.scheduling.events import Events
from tests.grid.tiny import put

FULL = "{method: [ptq, qat, ptq+qat], granularity: [per_channel, per_tensor], fuse_bn: [false, true]}"


@dataclass
class Machine:
    """Plays Tune: starts what the searcher suggests on so many cores, and lets trials end in any order."""

    searcher: TrieSearcher
    plan: Plan
    store: StageStore
    cpus: float
    numbers: Any = field(default_factory=itertools.count)
    trials: dict[str, dict[str, Any]] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    over: bool = False

    def fill(self, most: int | None = None) -> None:
        """Ask for trials while the cores last (as many as ``most``, where given)."""
        while not self.over and (most is None or len(self.trials) < most):
            name = f"trial{next(self.numbers)}"
            found = self.searcher.suggest(name)
            self.over = found == Searcher.FINISHED
            if not isinstance(found, dict):
                return
            self.trials[name] = found
            self.order.append(found["node"])

    def node(self, name: str) -> Node:
        return next(node for node in self.plan.nodes if node.id == self.trials[name]["node"])

    def end(self, name: str, fail: bool = False) -> None:
        """One trial ends, with its result in the store or without."""
        node = self.node(name)
        if not fail:
            put(self.store, node)
        del self.trials[name]
        self.searcher.on_trial_complete(name, error=fail)

    def stages(self) -> list[str]:
        return sorted(config["stage"] for config in self.trials.values())


def events_of(machine: Machine) -> Events:
    assert isinstance(machine.searcher.listener, Events)
    return machine.searcher.listener
