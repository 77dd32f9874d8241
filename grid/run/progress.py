"""What a run shows of itself: a live table on a terminal, elsewhere lines that say how much is left."""

import sys
import time
from collections import Counter
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from grid.planning.plan import Cell, Node, Plan
from grid.planning.users import users_by_node, users_named
from grid.run.costs import Costs
from grid.storage.result_store import StageStore
from model.progress import duration

_PLAIN_EVERY_S = 15.0
_LOOK_EVERY_S = 2.0
_LOOK_SHARE = 0.02
"""Of the driver's time, at most, goes into estimates of the time that is left."""
_AROUND_TABLE = 10
"""Lines of a terminal that the table leaves for its frame and for what is printed above it."""
_LONGEST_REASON = 60


def say(console: Console, text: str) -> None:
    """Print a text as it is, above a live table."""
    console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)
    sys.stdout.flush()


class Progress:
    """A listener that shows a plan while it runs; an event costs what hangs on its node, not what the grid holds."""

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
        self.users = users_by_node(plan)
        self.done = {node.id for node in plan.nodes if store.has(node.id)}
        self.to_do = len(plan.nodes) - len(self.done)
        self.cell_done = {cell.name: sum(node in self.done for node in cell.nodes.values()) for cell in plan.cells}
        self.ok = sum(self.cell_done[cell.name] == len(cell.nodes) for cell in plan.cells)
        self.running: dict[str, tuple[Node, float, dict[str, Any]]] = {}
        self.lost: set[str] = set()
        self.failed_cells: dict[str, tuple[str, bool]] = {}
        self.left_s = self.look_again = 0.0
        self.live: Live | None = None
        self.last_plain = 0.0

    def __enter__(self) -> Self:
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
            self._line(f"{node.stage} {self._for(node)}: {_described(info)}")

    def finished(self, node: Node) -> None:
        """The node is in the store."""
        _, since, _ = self.running.pop(node.id, (node, time.monotonic(), {}))
        if node.id not in self.done:
            self.done.add(node.id)
            for cell in self.users.get(node.id, ()):
                self.cell_done[cell.name] += 1
                self.ok += self.cell_done[cell.name] == len(cell.nodes)
        self.costs.learn(node)
        if not self.live:
            self._line(f"{node.stage} {self._for(node)}: {time.monotonic() - since:.0f} s")

    def retried(self, node: Node, reason: str) -> None:
        """The attempt failed and will be retried."""
        self.running.pop(node.id, None)
        self._line(f"AGAIN  {self._for(node)}: {reason}")

    def failed(self, node: Node, reason: str, inherited: bool) -> None:
        """The node will not be in the store; a reason is printed once, for the node that has it from nobody."""
        self.running.pop(node.id, None)
        self.lost.add(node.id)
        for cell in self.users.get(node.id, ()):
            self.failed_cells.setdefault(cell.name, (reason, inherited))
        if not inherited:
            self._line(f"FAILED {self._for(node)}: {reason}")

    def _line(self, text: str) -> None:
        if self.live:
            return say(self.console, text)
        done, of = len(self.done), len(self.plan.nodes)
        left = f", about {duration(self._time_left())} left" if done + len(self.lost) < of else ""
        say(self.console, f"[{done}/{of}{left}] {text}")

    def _for(self, node: Node) -> str:
        """``fp32``, ``for 6 cells`` or ``for the float reference``."""
        cells = self.users.get(node.id, ())
        return users_named(cells) if len(cells) == 1 else f"for {users_named(cells)}"

    # ---- the table

    def _table(self) -> Table:
        title = f"{len(self.done)} of {len(self.plan.nodes)} stages done, {self._now()}"
        cells = self._shown_cells()
        hidden = len(self.plan.cells) - len(cells)
        more = f"and {hidden} more cells; of all, {self.ok} are ok and {len(self.failed_cells)} failed"
        table = Table(
            title=title, title_justify="left", caption=more if hidden else None, caption_justify="left", expand=False
        )
        for column in ("cell", "done", "phase", "progress"):
            table.add_column(column, no_wrap=True)
        for cell in cells:
            table.add_row(cell.name, *self._row(cell))
        return table

    def _shown_cells(self) -> list[Cell]:
        """All cells where the terminal has room for them, else those that run and then those that failed last."""
        room = max(self.console.height - _AROUND_TABLE, 1)
        if len(self.plan.cells) <= room:
            return list(self.plan.cells)
        shown: dict[str, Cell] = {}
        for node_id in self.running:
            for cell in self.users.get(node_id, ())[:room]:
                shown.setdefault(cell.name, cell)
        failed = set(list(self.failed_cells)[-room:])
        shown |= {cell.name: cell for cell in self.plan.cells if cell.name in failed and cell.name not in shown}
        return list(shown.values())[:room]

    def _row(self, cell: Cell) -> tuple[str, Text, Text]:
        """Stages done, phase and progress of a cell."""
        ids = cell.nodes.values()
        done = f"{self.cell_done[cell.name]}/{len(ids)}"
        if cell.name in self.failed_cells:
            reason, inherited = self.failed_cells[cell.name]
            reason = f"inherited: {reason}" if inherited else reason
            return done, Text("failed", "red"), Text(reason[:_LONGEST_REASON])
        if self.cell_done[cell.name] == len(ids):
            return done, Text("ok", "green"), Text("")
        for one in ids:
            if one in self.running:
                node, since, info = self.running[one]
                return done, Text(node.stage), Text(f"{time.monotonic() - since:.0f} s  {_described(info)}")
        return done, Text("waiting", "dim"), Text("")

    def _now(self) -> str:
        counts = Counter(node.stage for node, _, _ in self.running.values())
        now = ", ".join(f"{count} {stage}" for stage, count in counts.items()) or "starting"
        left_s = self._time_left()
        return f"{now}; about {duration(left_s)} left" if left_s else now

    # ---- the time that is left

    def _time_left(self) -> float:
        """Seconds, by an estimate that is renewed now and then."""
        began = time.monotonic()
        if began > self.look_again:
            self.left_s = self._left_seconds()
            ended = time.monotonic()
            self.look_again = ended + max(_LOOK_EVERY_S, (ended - began) / _LOOK_SHARE)
        return self.left_s

    def _left_seconds(self) -> float:
        done = [min(time.monotonic() - since, self.costs.seconds(node)) for node, since, _ in self.running.values()]
        whole = self.costs.wall_seconds(self.plan, self._waiting(), self.trials)
        return max(whole - sum(done) / self.trials, 0.0)

    def _waiting(self) -> list[str]:
        """Ids of the stages that are neither done nor given up."""
        return [node.id for node in self.plan.nodes if node.id not in self.done and node.id not in self.lost]


def _described(info: dict[str, Any]) -> str:
    parts = []
    if "epoch" in info:
        parts.append(f"epoch {info['epoch']:.0f}/{info.get('epochs', 0):.0f}")
    if "step" in info:
        parts.append(f"step {info['step']:.0f}/{info.get('steps', 0):.0f}")
    headline = next((name for name in info if name.startswith("val_")), "")
    for key, label in (("loss", "loss"), (headline, headline.replace("_", " ", 1))):
        if key in info:
            parts.append(f"{label} {info[key]:.4f}")
    return " ".join(parts)
