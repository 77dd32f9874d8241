"""Keeps results.csv, the report and MLflow up to date while a plan runs; all of it in the driver's process."""

import contextlib
import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

from grid.planning.plan import Cell, Node, Plan
from grid.report.report import write_results_csv
from grid.results.recommend import Target
from grid.results.rows import Row, history, settings_by_place
from grid.run.files import RunFiles
from grid.run.user_network import kept_file
from grid.scheduling.tune import Observer
from grid.secrets import masked
from grid.space.settings import Scalar
from grid.stages.analysis_files import FILES as ANALYSIS_FILES
from grid.stages.output_files import LATENCIES, OPERATORS, SAMPLES
from grid.storage.result_store import StageStore
from grid.tracking.mlflow_store import ModelArtifact, Tracking
from grid.tracking.uri import EXPERIMENT, store_uri, ui_command
from model.data.pack import Pack
from model.network.user_network import OWN, own_network

_FILES: tuple[tuple[str, str], ...] = (("profile", OPERATORS), ("profile", LATENCIES), ("evaluate", SAMPLES))
_FILES += tuple(("analyze", name) for name in ANALYSIS_FILES)
_TAGS = ("method", "granularity", "fuse_bn", "same_as", "graph_hash", "cpu_model")
_QUIET_S = 60.0
"""How long MLflow is left alone after it failed."""
_LONG_S = 10.0
_PACKAGES = ("torch", "torchvision", "timm", "ray", "mlflow")


class Recorder:
    """Writes every cell to results.csv and MLflow as soon as its last stage is in the store.

    MLflow is written in a thread: a server that is slow or down does not hold up the grid. What could not be written
    is written at the end, or by ``python runner.py --sync RUN``. Raises InputError where the tracking store is of no
    use at the start.
    """

    def __init__(
        self,
        files: RunFiles,
        store: StageStore,
        pack: Pack,
        uri: str | None = None,
        target: Target | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.files, self.store, self.pack, self.target, self.say = files, store, pack, target, say
        self.uri = uri or store_uri(store.root)
        self.tracking = Tracking(self.uri, EXPERIMENT, store.root / "mlflow-artifacts")
        context, (common, self.axes) = files.context, settings_by_place(files.plan)
        params, tags = {**context, **common}, {"grid.command": str(context["command"])}
        self.parent_id = self.tracking.parent(str(context["run"]), params, tags)
        self.problem: str | None = None
        self.noted: set[str] = set()
        self.quiet_until = float("-inf")
        self.thread = ThreadPoolExecutor(1, "mlflow")

    @property
    def ui_command(self) -> str:
        """How to look at the runs."""
        return ui_command(self.uri, self.store.root)

    def beside(self, shown: Observer) -> Observer:
        """An observer that records, and passes everything on to ``shown``."""
        return _Both(shown, self)

    def ended(self, cells: Sequence[Cell]) -> None:
        """These cells have just got their last stage."""
        rows = {row["cell"]: row for row in self.files.rows(self.store)}
        for cell in cells:
            self.thread.submit(self._record_now, cell, rows[cell.name])
        try:
            write_results_csv(list(rows.values()), self.files.folder / "results.csv")
        except OSError as error:  # the rows are made again at the end
            self._note("results.csv cannot be written now", f" ({error.strerror})")

    def finish(self, failures: dict[str, str]) -> list[Row]:
        """Write what is missing in MLflow, results.csv and the report; returns the rows.

        Where MLflow still cannot be written to, ``problem`` says why, and all else is there.
        """
        with self._wait_told():
            self.thread.shutdown(cancel_futures=True)
        self.files.failures = failures
        self.files.save()
        self.problem = None
        cells = {cell.name: cell for cell in (*self.files.plan.cells, *self.files.plan.excluded)}

        def write_cells() -> None:
            for row in self.files.rows(self.store):
                if row["status"] != "skipped":
                    self.record(cells[row["cell"]], row)

        with self._wait_told():
            self._try(write_cells)
        self.files.save()
        files = self.files.write(self.store, self.target)
        rows = self.files.rows(self.store)
        statuses = {row["status"] for row in rows}
        status = "KILLED" if "skipped" in statuses else "FAILED" if "failed" in statuses else "FINISHED"
        counts = {"cells_ok": float(sum(row["status"] == "ok" for row in rows))}
        if not self.problem:
            with self._wait_told():
                self._try(lambda: self.tracking.close(self.parent_id, files, counts, status))
        return rows

    def record(self, cell: Cell, row: Row) -> None:
        """Write one finished, failed or excluded cell to MLflow."""
        figures = {
            name: float(value)
            for name, value in row.items()
            if isinstance(value, float) or (name == "float_sites" and value is not None)
        }
        artifacts = [self.store.path(cell.nodes[stage]) / name for stage, name in _FILES if stage in cell.nodes]
        model = None
        if row["status"] == "ok" and row["graph_hash"]:
            example = self.pack.images("test", [0]).numpy()
            encoder = str(cell.settings["network.encoder"])
            own = self.files.context.get(f"{encoder}.sha256")
            source = kept_file(self.store.root, encoder, str(own)) if own else None
            folder = self.store.path(cell.nodes["convert"])
            model = ModelArtifact(folder, example, row["graph_hash"], source, cell.relevant)
        self.files.mlflow_runs[cell.name] = self.tracking.write_cell(
            self.parent_id,
            cell.key,
            cell.name,
            self.axes[cell.name],
            figures,
            history(cell, self.store),
            [path for path in artifacts if path.exists()],
            model,
            {key: str(row.get(key)) for key in _TAGS},
            row["status"],
            row["reason"] or "",
        )

    def register(self, row: Row, name: str) -> str:
        """Register the int8 model of a row's cell in MLflow; returns its URI."""
        return self.tracking.register(row["mlflow_run_id"], name)

    def _record_now(self, cell: Cell, row: Row) -> None:
        """Record a cell, unless MLflow failed a moment ago: each try against a dead server takes a while."""
        if time.monotonic() >= self.quiet_until:
            self._try(lambda: self.record(cell, row))

    def _try(self, write: Callable[[], object]) -> None:
        """Write to MLflow; whatever goes wrong there is a problem to tell, and no reason to stop."""
        try:
            write()
        except Exception as error:
            self.quiet_until = time.monotonic() + _QUIET_S
            text = masked(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
            self._note("MLflow cannot be written to", f" ({text}); the results are kept, and written there later")
            self.problem = text

    @contextlib.contextmanager
    def _wait_told(self) -> Iterator[None]:
        """Say what a long wait is for."""
        told = threading.Timer(_LONG_S, self._note, ("MLflow is still being written to", " ..."))
        told.start()
        try:
            yield
        finally:
            told.cancel()

    def _note(self, what: str, why: str) -> None:
        """Say something once."""
        if what not in self.noted:
            self.noted.add(what)
            self.say(what + why)


def run_context(plan: Plan, pack: Pack, run_name: str, command: str) -> dict[str, Scalar]:
    """The facts of a run that stand at the end of its report and in MLflow."""
    encoders = {str(cell.settings["network.encoder"]) for cell in plan.cells}
    return {
        "command": command,
        "run": run_name,
        "origin": pack.origin,
        "data_fingerprint": pack.fingerprint,
        "test_images": pack.size("test"),
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        **{f"{name}.sha256": own_network(name).sha256 for name in sorted(encoders) if name.startswith(OWN)},
    }


class _Both:
    """Shows every event, and records a cell when its last node is there."""

    def __init__(self, shown: Observer, recorder: Recorder) -> None:
        self.shown, self.recorder = shown, recorder

    def started(self, node: Node) -> None:
        self.shown.started(node)

    def progressed(self, node: Node, info: dict[str, Any]) -> None:
        self.shown.progressed(node, info)

    def retried(self, node: Node, reason: str) -> None:
        self.shown.retried(node, reason)

    def failed(self, node: Node, reason: str) -> None:
        self.shown.failed(node, reason)

    def finished(self, node: Node) -> None:
        self.shown.finished(node)
        recorder = self.recorder
        cells = [cell for cell in recorder.files.plan.cells if node.id in cell.nodes.values()]
        ended = [cell for cell in cells if all(map(recorder.store.has, cell.nodes.values()))]
        if ended:  # most nodes end no cell, and rows are made of the records of all
            recorder.ended(ended)
