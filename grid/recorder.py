"""Keeps results.csv, the report and MLflow up to date while a plan runs; all of it in the driver's process."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from grid.analysis import FILES as ANALYSIS_FILES
from grid.plan import Cell, Node, Plan
from grid.recommend import Target
from grid.report import write_results_csv
from grid.results import LATENCIES, OPERATORS, SAMPLES, Row, history, settings_by_place
from grid.run_files import RunFiles
from grid.schedule import Observer
from grid.stages import StageStore
from grid.store import ModelArtifact, Tracking
from grid.tracking_uri import EXPERIMENT, store_uri, ui_command
from model.own import OWN, own_network
from model.pack import Pack

_FILES: tuple[tuple[str, str], ...] = (("profile", OPERATORS), ("profile", LATENCIES), ("evaluate", SAMPLES))
_FILES += tuple(("analyze", name) for name in ANALYSIS_FILES)
_PACKAGES = ("torch", "torchvision", "timm", "ray", "mlflow")


class Recorder:
    """Writes every cell to MLflow and results.csv as soon as its last stage is in the store.

    Raises InputError where the tracking store cannot be used.
    """

    def __init__(
        self,
        plan: Plan,
        store: StageStore,
        pack: Pack,
        run_dir: Path,
        run_name: str,
        uri: str | None,
        command: str,
        target: Target | None = None,
    ) -> None:
        self.plan, self.store, self.pack, self.target = plan, store, pack, target
        self.uri = uri or store_uri(store.root)
        self.tracking = Tracking(self.uri, EXPERIMENT, store.root / "mlflow-artifacts")
        encoders = {str(cell.settings["network.encoder"]) for cell in plan.cells}
        context: dict[str, str | int | float | bool | None] = {
            "command": command,
            "run": run_name,
            "origin": pack.origin,
            "data_fingerprint": pack.fingerprint,
            "test_images": pack.size("test"),
            "python": platform.python_version(),
            **{name: version(name) for name in _PACKAGES},
            **{f"{name}.sha256": own_network(name).sha256 for name in sorted(encoders) if name.startswith(OWN)},
        }
        self.files = RunFiles(run_dir, plan, context)
        common, self.axes = settings_by_place(plan)
        self.parent_id = self.tracking.parent(run_name, {**context, **common}, {"grid.command": command})

    @property
    def ui_command(self) -> str:
        """How to look at the runs."""
        return ui_command(self.uri, self.store.root)

    def beside(self, shown: Observer) -> Observer:
        """An observer that records, and passes everything on to ``shown``."""
        return _Both(shown, self)

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
            source = own_network(encoder).file if encoder.startswith(OWN) else None
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
            {key: str(row.get(key)) for key in ("method", "granularity", "fuse_bn", "same_as", "graph_hash")},
            row["status"],
            row["reason"] or "",
        )

    def finish(self, failures: dict[str, str], interrupted: bool) -> list[Row]:
        """Write what is missing in MLflow, results.csv and the report; returns the rows."""
        self.files.failures = failures
        cells = {cell.name: cell for cell in (*self.plan.cells, *self.plan.excluded)}
        for row in self.files.rows(self.store):
            if row["status"] != "skipped":
                self.record(cells[row["cell"]], row)
        self.files.save()
        files = self.files.write(self.store, self.target)
        rows = self.files.rows(self.store)
        done = all(row["status"] in ("ok", "excluded") for row in rows)
        status = "FINISHED" if done else "KILLED" if interrupted else "FAILED"
        counts = {"cells_ok": float(sum(row["status"] == "ok" for row in rows))}
        self.tracking.close(self.parent_id, files, counts, status)
        return rows

    def register(self, row: Row, name: str) -> str:
        """Register the int8 model of a row's cell in MLflow; returns its URI."""
        return self.tracking.register(row["mlflow_run_id"], name)


class _Both:
    """Shows every event, and records a cell when its last node is there."""

    def __init__(self, shown: Observer, recorder: Recorder) -> None:
        self.shown, self.recorder = shown, recorder

    def started(self, node: Node) -> None:
        self.shown.started(node)

    def progressed(self, node: Node, info: dict[str, Any]) -> None:
        self.shown.progressed(node, info)

    def failed(self, node: Node, reason: str) -> None:
        self.shown.failed(node, reason)

    def finished(self, node: Node) -> None:
        self.shown.finished(node)
        recorder = self.recorder
        cells = [cell for cell in recorder.plan.cells if node.id in cell.nodes.values()]
        ended = [cell for cell in cells if all(map(recorder.store.has, cell.nodes.values()))]
        if not ended:  # most nodes end no cell, and rows are made of the records of all
            return
        rows = {row["cell"]: row for row in recorder.files.rows(recorder.store)}
        for cell in ended:
            recorder.record(cell, rows[cell.name])
            rows[cell.name]["mlflow_run_id"] = recorder.files.mlflow_runs[cell.name]
        write_results_csv(list(rows.values()), recorder.files.folder / "results.csv")
