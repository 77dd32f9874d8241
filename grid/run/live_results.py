"""The rows of a run while it runs: a finished stage costs the rows of the cells that it ends, not those of the grid."""

import time
from collections.abc import Callable
from typing import Any

from grid.planning.plan import Cell, Node
from grid.planning.users import users_by_node
from grid.results.measures import measures_of
from grid.results.results_csv import write_results_csv
from grid.results.rows import Row, cell_row, further_axes, result_rows
from grid.results.timing import pooled_latencies
from grid.run.files import RunFiles
from grid.storage.result_store import StageStore

WRITE_EVERY_S = 30.0
"""All rows are written to results.csv at most this often, and at the end by whoever concludes the run."""


class LiveResults:
    """A listener that makes the row of a cell when its last stage is in the store, and keeps results.csv fresh."""

    def __init__(
        self,
        files: RunFiles,
        store: StageStore,
        ended: Callable[[Cell, Row], None],
        say: Callable[[str], None] = lambda text: None,
        begun: Callable[[], None] = lambda: None,
    ) -> None:
        """``ended`` is called with each cell that ends and its row, ``begun`` once, when a first stage runs."""
        self.files, self.store, self.ended, self.say, self.begun = files, store, ended, say, begun
        self.users, self.axes = users_by_node(files.plan), further_axes(files.plan)
        missing = {node for node in self.users if not store.has(node)}
        self.missing = {cell.name: missing.intersection(cell.nodes.values()) for cell in files.plan.cells}
        self.order = {cell.name: number for number, cell in enumerate(files.plan.cells)}
        self.rows: dict[str, Row] | None = None
        self.first: dict[str, str] = {}
        self.written_at = float("-inf")
        self.stale = self.said = False

    def started(self, node: Node) -> None:
        """A worker has begun."""
        self.begun()
        self.begun = lambda: None

    def progressed(self, node: Node, info: dict[str, Any]) -> None:
        """News from within a stage."""
        self._write_sometimes()

    def finished(self, node: Node) -> None:
        """The node is in the store."""
        for cell in self.users.get(node.id, ()):
            missing = self.missing[cell.name]
            if node.id in missing:
                missing.discard(node.id)
                if not missing:
                    self._end(cell)
        self._write_sometimes()

    def retried(self, node: Node, reason: str) -> None:
        """The attempt failed and will be retried."""

    def failed(self, node: Node, reason: str, inherited: bool) -> None:
        """The node will not be in the store."""

    def _end(self, cell: Cell) -> None:
        rows = self._known()
        row = cell_row(cell, self.axes, self.store, {})
        self._mark_same_(row)
        rows[cell.name] = row
        self.stale = True
        self.ended(cell, row)

    def _mark_same_(self, row: Row) -> None:
        """Say of which earlier cell this one has the int8 network; a later one that ended before is left as it is."""
        if row["graph_hash"]:
            first = self.first.setdefault(row["graph_hash"], row["cell"])
            if self.order[row["cell"]] < self.order[first]:
                self.first[row["graph_hash"]] = first = row["cell"]
            row["same_as"] = None if first == row["cell"] else first

    def _known(self) -> dict[str, Row]:
        """The rows by cell; all are read once, when the first cell ends."""
        if self.rows is None:
            self.rows = {row["cell"]: row for row in result_rows(self.files.plan, self.store, {})}
            for row in self.rows.values():
                if row["graph_hash"]:
                    self.first.setdefault(row["graph_hash"], row["cell"])
        return self.rows

    def _write_sometimes(self) -> None:
        if not self.stale or time.monotonic() - self.written_at < WRITE_EVERY_S:
            return
        self.written_at, self.stale = time.monotonic(), False
        try:
            rows = pooled_latencies(self.files.with_mlflow_runs(self._known().values()))
            write_results_csv(rows, self.files.folder / "results.csv", measures_of(self.files.task))
        except OSError as error:  # the rows are made again at the end
            if not self.said:
                self.say(f"results.csv cannot be written now ({error.strerror})")
            self.said = True
