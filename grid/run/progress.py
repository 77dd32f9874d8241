"""The live table: which cell is in which phase, with the time that is left."""

import sys
import time
from collections import Counter
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from grid.planning.plan import Cell, Node, Plan
from grid.run.costs import Costs, duration
from grid.storage.result_store import StageStore

_PLAIN_EVERY_S = 15.0
_LOOK_EVERY_S = 2.0


class Progress:
    """Shows a plan while it runs: a live table on a terminal, a line a finished stage elsewhere."""

    def __init__(
        self,
        plan: Plan,
        store: StageStore,
        console: Console | None = None,
        costs: Costs | None = None,
        trials: int = 1,
    ) -> None:
        """``trials``: how many stages may run at a time, for the time that is left."""
        self.plan, self.trials = plan, trials
        self.costs = costs or Costs(store, 0)
        self.console = console or Console(stderr=False)
        self.done = {node.id for node in plan.nodes if store.has(node.id)}
        self.to_do = len(plan.nodes) - len(self.done)
        self.finished_here = 0
        self.running: dict[str, tuple[Node, float, dict[str, Any]]] = {}
        self.failures: dict[str, str] = {}
        self.left_s = self.look_again = 0.0
        self.live: Live | None = None
        self.last_plain = 0.0

    def __enter__(self) -> "Progress":
        if self.console.is_terminal and self.to_do:
            self.live = Live(self._table(), console=self.console, refresh_per_second=4, get_renderable=self._table)
            self.live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.live:
            self.live.stop()

    def started(self, node: Node) -> None:
        """A worker has begun."""
        self.running[node.id] = (node, time.monotonic(), {})

    def progressed(self, node: Node, info: dict[str, Any]) -> None:
        """News from within a stage."""
        _, since, _ = self.running.get(node.id, (node, time.monotonic(), {}))
        self.running[node.id] = (node, since, info)
        if not self.live and time.monotonic() - self.last_plain > _PLAIN_EVERY_S:
            self.last_plain = time.monotonic()
            self._say(f"  {node.stage} {self._cells_of(node)}: {_describe(info)}")

    def finished(self, node: Node) -> None:
        """The node is in the store."""
        _, since, _ = self.running.pop(node.id, (node, time.monotonic(), {}))
        self.done.add(node.id)
        self.finished_here += 1
        self.costs.learn(node)
        if not self.live:
            seconds = time.monotonic() - since
            self._say(f"[{len(self.done)}/{len(self.plan.nodes)}] {node.stage} {self._cells_of(node)}: {seconds:.0f} s")

    def retried(self, node: Node, reason: str) -> None:
        """An attempt came to nothing."""
        self.running.pop(node.id, None)
        self._say(f"AGAIN  {self._cells_of(node)}: {reason}")

    def failed(self, node: Node, reason: str) -> None:
        """The node will not be in the store."""
        self.running.pop(node.id, None)
        self.failures[node.id] = reason
        if node.stage in reason.split(":")[0]:
            self._say(f"FAILED {self._cells_of(node)}: {reason}")

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
        sys.stdout.flush()

    def _cells_of(self, node: Node) -> str:
        names = [cell.name for cell in self.plan.cells if node.id in cell.nodes.values()]
        return names[0] if len(names) == 1 else f"for {len(names)} cells" if names else "as reference"

    def _table(self) -> Table:
        title = f"{len(self.done)} of {len(self.plan.nodes)} stages done, {self._left()}"
        table = Table(title=title, title_justify="left", expand=False)
        for column in ("cell", "done", "phase", "progress"):
            table.add_column(column, no_wrap=True)
        for cell in self.plan.cells:
            table.add_row(*self._line(cell))
        return table

    def _line(self, cell: Cell) -> tuple[str, str, str, str]:
        ids = list(cell.nodes.values())
        done = f"{sum(one in self.done for one in ids)}/{len(ids)}"
        failed = next((self.failures[one] for one in ids if one in self.failures), None)
        if failed:
            return cell.name, done, "[red]failed", failed[:60].replace("[", "(")
        if all(one in self.done for one in ids):
            return cell.name, done, "[green]ok", ""
        for one in ids:
            if one in self.running:
                node, since, info = self.running[one]
                return cell.name, done, node.stage, f"{time.monotonic() - since:.0f} s  {_describe(info)}"
        return cell.name, done, "[dim]waiting", ""

    def _left(self) -> str:
        counts = Counter(node.stage for node, _, _ in self.running.values())
        now = ", ".join(f"{count} {stage}" for stage, count in counts.items()) or "starting"
        if time.monotonic() > self.look_again:
            self.look_again = time.monotonic() + _LOOK_EVERY_S
            self.left_s = self._left_seconds()
        return f"{now}; about {duration(self.left_s)} left" if self.left_s else now

    def _left_seconds(self) -> float:
        done = [min(time.monotonic() - since, self.costs.seconds(node)) for node, since, _ in self.running.values()]
        whole = self.costs.wall_seconds(self.plan, self._waiting(), self.trials)
        return max(whole - sum(done) / self.trials, 0.0)

    def _waiting(self) -> list[str]:
        """Ids of the stages that are neither done nor given up."""
        return [node.id for node in self.plan.nodes if node.id not in self.done and node.id not in self.failures]


def _describe(info: dict[str, Any]) -> str:
    parts = []
    if "epoch" in info:
        parts.append(f"epoch {info['epoch']:.0f}/{info.get('epochs', 0):.0f}")
    if "step" in info:
        parts.append(f"step {info['step']:.0f}/{info.get('steps', 0):.0f}")
    for key, label in (("loss", "loss"), ("val_ssim", "val SSIM")):
        if key in info:
            parts.append(f"{label} {info[key]:.4f}")
    return " ".join(parts)
