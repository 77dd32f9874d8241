"""Writes a run to MLflow, and its files at the end; all of it in the driver's process."""

import contextlib
import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from grid.planning.plan import Cell, Plan
from grid.planning.stage_table import stage_named
from grid.results.rows import Row, history, settings_by_place
from grid.results.timing import pooled_latencies
from grid.run.files import RunFiles
from grid.run.networks import kept_file
from grid.secrets import masked
from grid.space.settings import Scalar
from grid.storage.predictions import load_predictions
from grid.storage.result_store import StageStore
from grid.tracking.cell_run import CellRun, ModelArtifact
from grid.tracking.uri import EXPERIMENT, store_uri, ui_command
from model.data.pack import Pack
from model.network.user_network import OWN, own_network
from model.tasks.answers import answer, has_postprocess
from model.tasks.nested import named

if TYPE_CHECKING:
    from grid.tracking.mlflow_store import Tracking

_TAGS = ("method", "granularity", "fuse_bn", "same_as", "graph_hash", "cpu_model")
_QUIET_S = 60.0
"""How long MLflow is left alone after it failed."""
_LONG_S = 10.0
_PACKAGES = ("torch", "torchvision", "timm", "ray", "mlflow")


class Recorder:
    """Writes cells to MLflow as they end, and everything that is missing there at the end of the run.

    MLflow is written in a thread: a server that is slow or down does not hold up the grid. What could not be written
    is written at the end, or by ``python runner.py --sync RUN``. The storage's own store is opened in the thread, too;
    with a ``uri`` of the user's the constructor raises InputError where it is of no use.
    """

    def __init__(
        self,
        files: RunFiles,
        store: StageStore,
        pack: Pack,
        uri: str | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.files, self.store, self.pack, self.say = files, store, pack, say
        self.uri = uri or store_uri(store.root)
        self.common, self.axes = settings_by_place(files.plan)
        self.opened: tuple[Tracking, str] | None = None
        self.problem: str | None = None
        self.noted: set[str] = set()
        self.quiet_until = float("-inf")
        self.thread = ThreadPoolExecutor(1, "mlflow")
        if uri is not None:
            self._store()  # what the user named is checked before anything is computed

    def open_later(self) -> None:
        """Open the store and the grid's run in the thread: importing MLflow and making its tables takes seconds."""
        self.thread.submit(self._try, self._store)

    @property
    def ui_command(self) -> str:
        """How to look at the runs."""
        return ui_command(self.uri, self.store.root)

    def record_later(self, cell: Cell, row: Row) -> None:
        """Write a cell that has just ended to MLflow, in the thread."""
        self.thread.submit(self._record_now, cell, row)

    def write_cells(self) -> list[Row]:
        """Write all cells that MLflow lacks; returns the rows of the grid, with their MLflow runs.

        MLflow's run of a cell holds what was measured of that cell, the rows hold the latency of its timing class.
        Where MLflow still cannot be written to, ``problem`` says why.
        """
        with self._wait_announced():
            self.thread.shutdown(cancel_futures=True)
        rows = self.files.measured(self.store)
        self.problem = None
        with self._wait_announced():
            self._try(lambda: self._record_all(rows))
        return pooled_latencies(self.files.with_mlflow_runs(rows))

    def close(self, rows: Sequence[Row], pages: Sequence[Path]) -> None:
        """End the grid's run in MLflow, with its pages; nothing where its cells could not be written."""
        if not self.problem:
            with self._wait_announced():
                self._try(lambda: self._close(rows, pages))

    def _store(self) -> tuple["Tracking", str]:
        """The MLflow store, and the id of the grid's run in it; opened once."""
        if self.opened is None:
            from grid.tracking.mlflow_store import Tracking

            tracking = Tracking(self.uri, EXPERIMENT, self.store.root / "mlflow-artifacts")
            context = self.files.context
            tags = {"grid.command": str(context["command"])}
            self.opened = tracking, tracking.parent(self.files.name, {**context, **self.common}, tags)
        return self.opened

    def record(self, cell: Cell, row: Row) -> None:
        """Write one finished, failed or excluded cell to MLflow."""
        figures = {
            name: float(value)
            for name, value in row.items()
            if isinstance(value, float) or (name == "float_sites" and value is not None)
        }
        artifacts = [
            self.store.path(node) / name for stage, node in cell.nodes.items() for name in stage_named(stage).artifacts
        ]
        written = CellRun(
            cell.key,
            cell.name,
            params=self.axes[cell.name],
            metrics=figures,
            history=history(cell, self.store),
            artifacts=[path for path in artifacts if path.exists()],
            model=self._model(cell, row),
            tags={key: str(row.get(key)) for key in _TAGS},
            status=row["status"],
            reason=row["reason"] or "",
        )
        tracking, parent_id = self._store()
        self.files.mlflow_runs[cell.name] = tracking.write_cell(parent_id, written)

    def register(self, row: Row, name: str) -> str:
        """Register the int8 model of a row's cell in MLflow; returns its URI."""
        from grid.tracking.logged_models import register_model

        tracking, _ = self._store()
        return register_model(tracking.client, row["mlflow_run_id"], name)

    def _model(self, cell: Cell, row: Row) -> ModelArtifact | None:
        """The int8 network of a finished cell."""
        if row["status"] != "ok" or not row["graph_hash"]:
            return None
        example = self.pack.images("test", [0]).numpy()
        encoder = str(cell.settings["network.encoder"])
        own = self.files.context.get(f"{encoder}.sha256")
        source = kept_file(self.store.root, encoder, str(own)) if own else None
        facts, postprocess = self.pack.task, self._postprocess()
        answers = None
        if postprocess is None:
            outputs = load_predictions(self.store.path(cell.nodes["evaluate"]), "test", first=1)
            answers = {name: tensor.numpy() for name, tensor in named(answer(facts.name, outputs)).items()}
        return ModelArtifact(
            self.store.path(cell.nodes["convert"]),
            example,
            row["graph_hash"],
            source,
            cell.relevant,
            facts.name,
            facts.classes,
            answers,
            postprocess,
        )

    def _postprocess(self) -> Path | None:
        """The storage's copy of the file of an own task that says what its outputs mean; it is not run here."""
        facts = self.pack.task
        if not facts.name.startswith(OWN):
            return None
        file = kept_file(self.store.root, facts.name, facts.identity, "tasks")
        return file if has_postprocess(file.read_bytes()) else None

    def _record_all(self, rows: Sequence[Row]) -> None:
        cells = {cell.name: cell for cell in (*self.files.plan.cells, *self.files.plan.excluded)}
        for row in rows:
            if row["status"] != "skipped":
                self.record(cells[row["cell"]], row)

    def _close(self, rows: Sequence[Row], files: Sequence[Path]) -> None:
        statuses = [row["status"] for row in rows]
        status = "KILLED" if "skipped" in statuses else "FAILED" if "failed" in statuses else "FINISHED"
        tracking, parent_id = self._store()
        tracking.close(parent_id, files, {"cells_ok": float(statuses.count("ok"))}, status)

    def _record_now(self, cell: Cell, row: Row) -> None:
        """Record a cell, unless MLflow failed a moment ago: each try against a dead server takes a while."""
        if time.monotonic() >= self.quiet_until:
            self._try(lambda: self.record(cell, row))

    def _try(self, write: Callable[[], object]) -> None:
        """Write to MLflow; whatever goes wrong there is a problem to report, and no reason to stop."""
        try:
            write()
        except Exception as error:
            self.quiet_until = time.monotonic() + _QUIET_S
            text = masked(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
            self._note("MLflow cannot be written to", f" ({text}); the results are kept, and written there later")
            self.problem = text

    @contextlib.contextmanager
    def _wait_announced(self) -> Iterator[None]:
        """Say what a long wait is for."""
        timer = threading.Timer(_LONG_S, self._note, ("MLflow is still being written to", " ..."))
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _note(self, what: str, why: str) -> None:
        """Say something once."""
        if what not in self.noted:
            self.noted.add(what)
            self.say(what + why)


def run_context(plan: Plan, pack: Pack, run_name: str, command: str) -> dict[str, Scalar]:
    """The facts of a run that are listed at the end of its report and in MLflow."""
    encoders = {str(cell.settings["network.encoder"]) for cell in plan.cells}
    return {
        "command": command,
        "run": run_name,
        "origin": pack.origin,
        "data_fingerprint": pack.fingerprint,
        **({"task": pack.task.text()} if pack.task.identity else {}),
        "test_images": pack.size("test"),
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        **{f"{name}.sha256": own_network(name).sha256 for name in sorted(encoders) if name.startswith(OWN)},
    }
