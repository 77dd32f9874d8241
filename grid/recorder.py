"""Keeps results.csv, the report and MLflow up to date while a plan runs; all of it in the driver's process."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from grid.analysis import FILES as ANALYSIS_FILES
from grid.plan import Cell, Node, Plan
from grid.report import write_report, write_results_csv
from grid.results import Row, history, result_rows
from grid.schedule import Observer
from grid.stages import StageStore
from grid.store import ModelArtifact, Tracking
from grid.tracking_uri import ui_command
from model.pack import Pack

PUBLISHED = Path(__file__).resolve().parent.parent / "search_spaces" / "published_results.csv"
_FILES = (("profile", "operators.txt"), ("evaluate", "samples.npz"), *(("analyze", name) for name in ANALYSIS_FILES))
_PACKAGES = ("torch", "torchvision", "timm", "ray", "mlflow")


class Recorder:
    """Writes every cell to MLflow and results.csv as soon as its last stage is in the store.

    Raises InputError where the tracking store cannot be used.
    """

    def __init__(
        self, plan: Plan, store: StageStore, pack: Pack, run_dir: Path, run_name: str, uri: str | None, command: str
    ) -> None:
        self.plan, self.store, self.pack, self.run_dir = plan, store, pack, run_dir
        self.uri = uri or f"sqlite:///{store.root / 'mlflow.db'}"
        self.tracking = Tracking(self.uri, "quantization-grid", store.root / "mlflow-artifacts")
        self.context: dict[str, str | int | float | bool | None] = {
            "command": command,
            "run": run_name,
            "origin": pack.origin,
            "data_fingerprint": pack.fingerprint,
            "test_images": pack.size("test"),
            "python": platform.python_version(),
            **{name: version(name) for name in _PACKAGES},
        }
        self.parent_id = self.tracking.parent(run_name, self.context, {"grid.command": command})
        self.run_ids: dict[str, str] = {}

    @property
    def ui_command(self) -> str:
        """How to look at the runs."""
        return ui_command(self.uri)

    def beside(self, shown: Observer) -> Observer:
        """An observer that records, and passes everything on to ``shown``."""
        return _Both(shown, self)

    def record(self, cell: Cell, row: Row) -> None:
        """Write one finished, failed or excluded cell to MLflow."""
        params = {"cell": cell.name, **cell.relevant}
        figures = {
            name: float(value)
            for name, value in row.items()
            if isinstance(value, float) or (name == "float_sites" and value is not None)
        }
        artifacts = [self.store.path(cell.nodes[stage]) / name for stage, name in _FILES if stage in cell.nodes]
        model = None
        if row["status"] == "ok" and row["graph_hash"]:
            example = self.pack.images("test", [0]).numpy()
            model = ModelArtifact(self.store.path(cell.nodes["convert"]), example, row["graph_hash"])
        self.run_ids[cell.name] = self.tracking.write_cell(
            self.parent_id,
            cell.key,
            cell.name,
            params,
            figures,
            history(cell, self.store),
            [path for path in artifacts if path.exists()],
            model,
            {key: str(row.get(key)) for key in ("method", "granularity", "fuse_bn", "same_as", "graph_hash")},
            row["status"],
            row["reason"] or "",
        )

    def rows(self, failures: dict[str, str]) -> list[Row]:
        """All rows as they are now, with their MLflow run."""
        rows = result_rows(self.plan, self.store, failures)
        return [{**row, "mlflow_run_id": self.run_ids.get(row["cell"])} for row in rows]

    def finish(self, failures: dict[str, str], interrupted: bool) -> list[Row]:
        """Write what is missing in MLflow, results.csv and the report; returns the rows."""
        cells = {cell.name: cell for cell in (*self.plan.cells, *self.plan.excluded)}
        for row in self.rows(failures):
            if row["status"] != "skipped":
                self.record(cells[row["cell"]], row)
        rows = self.rows(failures)
        write_results_csv(rows, self.run_dir / "results.csv")
        samples = {
            row["cell"]: self.store.path(cells[row["cell"]].nodes["evaluate"]) / "samples.npz"
            for row in rows
            if row["status"] == "ok"
        }
        analyses = {
            row["cell"]: Path(row["analysis"]) for row in rows if row.get("analysis") and not row.get("same_as")
        }
        report = write_report(self.run_dir, rows, self.context, PUBLISHED, samples, analyses)
        done = all(row["status"] in ("ok", "excluded") for row in rows)
        files = [report, self.run_dir / "results.csv", self.run_dir / "plan.txt", *self.run_dir.glob("*.png")]
        status = "FINISHED" if done else "KILLED" if interrupted else "FAILED"
        self.tracking.close(self.parent_id, files, {"cells_ok": float(sum(r["status"] == "ok" for r in rows))}, status)
        return rows

    def summary(self, rows: list[Row]) -> str:
        """The result table as text, and where everything is."""
        lines = [f"{'cell':28} {'status':9} {'SSIM':>7} {'SQNR dB':>8} {'MB':>6} {'ms':>7} {'x float':>8}  note"]
        for row in rows:
            figures = [row.get(key) for key in ("test_ssim", "sqnr_db", "size_mb", "latency_ms_p50", "latency_ratio")]
            shown = [
                "–".rjust(width) if value is None else f"{value:{width}.{digits}f}"
                for value, width, digits in zip(figures, (7, 8, 6, 7, 8), (4, 1, 3, 1, 2), strict=True)
            ]
            note = f"same as {row['same_as']}" if row.get("same_as") else row["reason"] or ""
            lines.append(f"{row['cell']:28} {row['status']:9} {' '.join(shown)}  {note}".rstrip())
        lines += ["", f"results    {self.run_dir / 'results.csv'}", f"report     {self.run_dir / 'report.md'}"]
        return "\n".join(lines)


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
        rows = {row["cell"]: row for row in recorder.rows({})}
        for cell in ended:
            recorder.record(cell, rows[cell.name])
        write_results_csv(recorder.rows({}), recorder.run_dir / "results.csv")
