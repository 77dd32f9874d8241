"""What a grid does, as metrics of the Ray cluster, for its dashboard, Prometheus and Grafana."""

import time
from collections import Counter, deque
from collections.abc import Collection
from typing import Any

from ray.util.metrics import Gauge

from grid.planning.names import cells_of, names_by_key
from grid.planning.plan import Cell, Node, Plan
from grid.planning.stage_table import stage_named
from grid.planning.users import users_by_node

REFRESH_S = 5.0
"""Ray forgets a gauge that was not set during its last two reports, which it makes every ten seconds."""
WINDOW_S = 20.0
MOST_CELLS = 1000
"""In a larger grid cells are counted, but have no series of their own."""
STATES = ("waiting", "running", "done", "failed")
METRICS: dict[str, tuple[str, tuple[str, ...]]] = {
    "quantization_grid_cells": ("Cells of the grid by state", ("state",)),
    "quantization_grid_stages": ("Stages of the grid by state", ("state",)),
    "quantization_grid_cell_done_ratio": ("Share of a cell's stages that are done, 0 to 1", ("cell",)),
    "quantization_grid_cell_phase": ("1 while this stage of the cell runs", ("cell", "phase")),
    "quantization_grid_images_per_second": (
        f"Pictures that a running stage works through in a second, over {WINDOW_S:.0f} s",
        ("stage", "cell", "id"),
    ),
}
"""Descriptions and tags by name; Ray puts ``ray_`` before the names."""
_Series = tuple[str, tuple[str, ...]]


class GridMetrics:
    """A listener that keeps the metrics of one run.

    Events only change what is known; ``refresh``, which the driver calls all the time, sets the gauges. A series
    that ends is set to 0 once, and then forgotten by Ray.
    """

    def __init__(self, plan: Plan, done: Collection[str], train_images: int) -> None:
        """``done``: ids of the nodes in the store; ``train_images``: size of the split that is trained on."""
        self.train_images = train_images
        self.names = names_by_key(plan)
        self.stages = {node.id: "done" if node.id in done else "waiting" for node in plan.nodes}
        self.users = users_by_node(plan)
        self.cells = {cell.key: self._state(cell) for cell in plan.cells}
        self.shown = plan.cells if len(plan.cells) <= MOST_CELLS else ()
        self.running: dict[str, tuple[Node, Throughput]] = {}
        self.gauges = {name: Gauge(name, text, tags) for name, (text, tags) in METRICS.items()}
        self.last: set[_Series] = set()
        self.refreshed_at = float("-inf")

    def started(self, node: Node) -> None:
        """A worker has begun."""
        self.running[node.id] = (node, Throughput())
        self._change(node, "running")

    def progressed(self, node: Node, info: dict[str, Any]) -> None:
        """News from within a stage."""
        images = images_seen(node, info, self.train_images)
        if images is not None and node.id in self.running:
            self.running[node.id][1].hear(images, int(info.get("steps", 0)), time.monotonic())

    def finished(self, node: Node) -> None:
        """The node is in the store."""
        self.running.pop(node.id, None)
        self._change(node, "done")

    def retried(self, node: Node, reason: str) -> None:
        """The attempt failed and will be retried."""
        self.running.pop(node.id, None)
        self._change(node, "waiting")

    def failed(self, node: Node, reason: str, inherited: bool) -> None:
        """The node will not be in the store."""
        self.running.pop(node.id, None)
        self._change(node, "failed")

    def refresh(self, now: bool = False) -> None:
        """Set all gauges, every ``REFRESH_S`` seconds or at once."""
        moment = time.monotonic()
        if not now and moment - self.refreshed_at < REFRESH_S:
            return
        self.refreshed_at = moment
        live = self._values(moment)
        ended = dict.fromkeys(self.last - live.keys(), 0.0)
        self.last = set(live)
        for (name, tags), value in (live | ended).items():
            self.gauges[name].set(value, dict(zip(METRICS[name][1], tags, strict=True)))

    def _values(self, now: float) -> dict[_Series, float]:
        """All that there is to show: values by name and tags."""
        values: dict[_Series, float] = {}
        for kind, states in (("cells", self.cells), ("stages", self.stages)):
            counts = Counter(states.values())
            values |= {(f"quantization_grid_{kind}", (state,)): float(counts[state]) for state in STATES}
        for cell in self.shown:
            done = sum(self.stages[one] == "done" for one in cell.nodes.values())
            values["quantization_grid_cell_done_ratio", (cell.name,)] = done / len(cell.nodes)
        for node, throughput in self.running.values():
            for cell in self.users.get(node.id, ()) if self.shown else ():
                values["quantization_grid_cell_phase", (cell.name, node.stage)] = 1.0
            rate = throughput.per_second(now)
            if rate is not None:
                tags = (node.stage, cells_of(node, self.names), node.id[:8])
                values["quantization_grid_images_per_second", tags] = rate
        return values

    def _change(self, node: Node, state: str) -> None:
        self.stages[node.id] = state
        for cell in self.users.get(node.id, ()):
            self.cells[cell.key] = self._state(cell)

    def _state(self, cell: Cell) -> str:
        states = {self.stages[one] for one in cell.nodes.values()}
        if states == {"done"}:
            return "done"
        return next((state for state in ("failed", "running") if state in states), "waiting")


class Throughput:
    """Pictures a second over the last ``WINDOW_S`` seconds, from counts that the driver hears now and then.

    Time in which no pictures are counted (validation between epochs) lets it fall.
    """

    def __init__(self) -> None:
        self.heard: deque[tuple[float, int]] = deque()
        self.earlier = self.images = 0

    def hear(self, images: int, total: int, now: float) -> None:
        """``images`` were done at the time ``now``; where they are no more than before, a pass over ``total`` ended."""
        if images <= self.images:
            self.earlier += total
        self.images = images
        self.heard.append((now, self.earlier + images))

    def per_second(self, now: float) -> float | None:
        """The rate, or None until two counts are known."""
        if len(self.heard) < 2 or now <= self.heard[0][0]:
            return None if not self.heard or self.heard[0][0] > now - WINDOW_S else 0.0
        while len(self.heard) > 1 and self.heard[1][0] <= now - WINDOW_S:
            self.heard.popleft()
        (since, before), (_, latest) = self.heard[0], self.heard[-1]
        return (latest - before) / (now - since)


def images_seen(node: Node, info: dict[str, Any], train_images: int) -> int | None:
    """How many pictures a stage has worked through, by its news; None where it counts something else.

    Training counts batches by epoch, of ``train_images`` pictures or fewer where its settings say so.
    """
    stage = stage_named(node.stage)
    if stage.counts_images:
        return int(info["step"])
    if stage.trains is None:
        return None
    in_epoch = min(int(node.settings[f"{stage.trains}.images_per_epoch"] or train_images), train_images)
    if "step" not in info:  # an epoch has ended
        return int(info["epoch"]) * in_epoch
    seen = int(info["step"]) * int(node.settings[f"{stage.trains}.batch_size"] or 1)
    return (int(info["epoch"]) - 1) * in_epoch + min(seen, in_epoch)
