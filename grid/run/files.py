"""The files of a run: what was planned and what came of it, kept so that the report can be made again."""

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grid.paths import PUBLISHED_RESULTS
from grid.planning.output_files import LATENCIES, PER_IMAGE, PREDICTIONS, SAMPLES
from grid.planning.plan import Cell, Plan
from grid.planning.stage_table import stage_names
from grid.report.inputs import ReportInputs
from grid.report.report import write_report
from grid.results.comparisons.evidence import Evidence
from grid.results.comparisons.margins import Margins
from grid.results.measures import measures_of
from grid.results.results_csv import write_results_csv
from grid.results.rows import Row, commands, history, result_rows
from grid.results.target import Target, parse_target
from grid.results.timing import pooled_latencies
from grid.space.settings import groups, setting_types
from grid.space.values import Entry
from grid.storage.per_image import write_cells_images
from grid.storage.result_store import StageStore
from model.data.pack import Pack
from model.errors import InputError
from model.files import write_atomically
from model.tasks.facts import DEPTH_FACTS, TaskFacts

FILE = "plan.json"
_CONTEXT = {"run", "command", "origin", "test_images"}
_SETTINGS = {"fuse_bn", "granularity", "method", "engine", "seed", "network.encoder"}


@dataclass
class RunFiles:
    """A run's folder, its plan, and what its report needs beside the store.

    ``context`` are the facts at the report's end (``run``, ``command``, ``origin``, ``test_images`` and more),
    ``failures`` reasons by node id, ``mlflow_runs`` MLflow run ids by cell.
    """

    folder: Path
    plan: Plan
    context: Mapping[str, Any]
    failures: dict[str, str] = field(default_factory=dict)
    mlflow_runs: dict[str, str] = field(default_factory=dict)

    def save(self) -> None:
        """Write ``plan.json``; what all cells have in common stands there once."""
        cells = (*self.plan.cells, *self.plan.excluded)
        common = dict(cells[0].settings) if cells else {}
        common = {key: value for key, value in common.items() if all(_has(cell, key, value) for cell in cells)}
        document = {
            "context": dict(self.context),
            "failures": self.failures,
            "mlflow_runs": self.mlflow_runs,
            "repeats": self.plan.repeats,
            "common": common,
            "cells": [_written(cell, common) for cell in self.plan.cells],
            "excluded": [_written(cell, common) for cell in self.plan.excluded],
        }
        write_atomically(self.folder / FILE, json.dumps(document, separators=(",", ":")))

    @classmethod
    def load(cls, folder: Path) -> "RunFiles":
        """Read a run's folder; its plan has cells but no nodes. Raises InputError where there is none."""
        try:
            document = json.loads((folder / FILE).read_text(encoding="utf-8"))
            common = document["common"]
            cells, excluded = (
                tuple(_read(entry, common) for entry in document[name]) for name in ("cells", "excluded")
            )
            _require("repeats", type(document["repeats"]) is int)
            plan = Plan(cells, (), excluded, document["repeats"])
            context, failures, runs = (document[name] for name in ("context", "failures", "mlflow_runs"))
            _require("context", _is_flat(context) and context.keys() >= _CONTEXT)
            if "task" in context:
                TaskFacts.read(context["task"])
            _require("failures", _is_flat(failures) and all(isinstance(reason, str) for reason in failures.values()))
            _require("mlflow_runs", _is_flat(runs))
            return cls(folder, plan, context, failures, runs)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            problem = f"cannot be read ({type(error).__name__}: {str(error)[:200]})"
            raise InputError(str(folder / FILE), problem, "the file that a run of this version leaves") from None

    @property
    def name(self) -> str:
        """The name of the run."""
        return str(self.context["run"])

    @property
    def task(self) -> TaskFacts:
        """What was learned from the data."""
        text = self.context.get("task")
        return TaskFacts.read(str(text)) if text else DEPTH_FACTS

    def rows(self, store: StageStore) -> list[Row]:
        """All rows as they are now, with the latencies of their timing classes; reads the records of all stages."""
        return pooled_latencies(self.measured(store))

    def measured(self, store: StageStore) -> list[Row]:
        """All rows as they are now, each with what was measured of its own network, and their MLflow run."""
        return self.with_mlflow_runs(result_rows(self.plan, store, self.failures))

    def with_mlflow_runs(self, rows: Iterable[Row]) -> list[Row]:
        """These rows with their MLflow run as it is now."""
        return [{**row, "mlflow_run_id": self.mlflow_runs.get(row["cell"])} for row in rows]

    def write(
        self, rows: list[Row], store: StageStore, target: Target | None = None, margins: Margins | None = None
    ) -> tuple[list[Path], Evidence]:
        """Write results.csv, per_image.csv and both reports.

        Returns all files of the run that are worth keeping, and what the results say about differences.
        """
        measures = measures_of(self.task)
        cells = {cell.name: cell for cell in self.plan.cells}
        ok = [row["cell"] for row in rows if row["status"] == "ok"]
        timed = [row["cell"] for row in rows if row["status"] == "ok" and row["graph_hash"]]
        int8 = [row["cell"] for row in rows if row["status"] == "ok" and row["graph_hash"] and not row["same_as"]]

        def files(names: list[str], stage: str, name: str) -> dict[str, Path]:
            paths = {cell: store.path(cells[cell].nodes[stage]) / name for cell in names if stage in cells[cell].nodes}
            return {cell: path for cell, path in paths.items() if path.exists()}

        images = files(ok, "evaluate", PER_IMAGE)
        latencies = files(timed, "profile", LATENCIES) | files(timed, "profile_on_device", LATENCIES)
        histories = {cell: history(cells[cell], store) for cell in int8 if "finetune" in cells[cell].nodes}
        inputs = ReportInputs(
            rows,
            self.context,
            target or parse_target("", measures),
            published=PUBLISHED_RESULTS,
            samples=files(ok, "evaluate", SAMPLES),
            predictions=files(ok, "evaluate", PREDICTIONS),
            references=_references({cell: cells[cell].nodes.get("evaluate", "") for cell in ok}, store),
            images=images,
            margins=measures.margins if margins is None else margins,
            analyses={row["cell"]: Path(row["analysis"]) for row in rows if row.get("analysis") and not row["same_as"]},
            histories=histories,
            latencies=latencies,
            commands=commands(self.plan, str(self.context["command"])),
            pack=pack_of(store.root, self.context),
            task=self.task,
        )
        report, page = write_report(self.folder, inputs)
        table = write_results_csv(rows, self.folder / "results.csv", measures)
        tables = [table, write_cells_images(self.folder / PER_IMAGE, images)] if images else [table]
        others = (self.folder / "plan.txt", self.folder / FILE, *self.folder.glob("*.png"))
        return [report, page, *tables, *others], inputs.evidence


def pack_of(storage: Path, context: Mapping[str, Any]) -> Pack | None:
    """The packed data that a run was computed on, if the storage still has them."""
    for path in sorted((storage / "packs").glob("*.h5")):
        with contextlib.suppress(InputError):  # of another version, or broken: no pack of this run
            if (pack := Pack(path)).fingerprint == context.get("data_fingerprint"):
                return pack
    return None


def _references(evaluations: Mapping[str, str], store: StageStore) -> dict[str, Path]:
    """The float root's predictions by cell, for the cells that have one; ``evaluations`` are ids of stages by cell.

    Of a task with several outputs the path stands for the files of each, which are beside it.
    """
    found = {}
    for cell, node in evaluations.items():
        root = dict(store.record(node)["inputs"]).get("reference") if node else None
        if root and any(store.path(root).glob(f"{Path(PREDICTIONS).stem}*.npy")):
            found[cell] = store.path(root) / PREDICTIONS
    return found


def _has(cell: Cell, key: str, value: Any) -> bool:
    return key in cell.settings and type(cell.settings[key]) is type(value) and cell.settings[key] == value


def _written(cell: Cell, common: Mapping[str, Any]) -> dict[str, Any]:
    settings = {key: value for key, value in cell.settings.items() if key not in common}
    return dataclasses.asdict(cell) | {"settings": settings, "relevant": sorted(cell.relevant)}


def _read(entry: Mapping[str, Any], common: Mapping[str, Any]) -> Cell:
    settings = {**common, **entry["settings"]}
    cell = Cell(**{**entry, "settings": settings, "relevant": {key: settings[key] for key in entry["relevant"]}})
    _require("name", isinstance(cell.name, str) and re.fullmatch(r"[\w.=+-]+", cell.name) is not None)
    _require("key", isinstance(cell.key, str))
    _require("excluded", isinstance(cell.excluded, str | None))
    _require("settings", _is_flat(settings) and settings.keys() >= _SETTINGS)
    for key, value in settings.items():
        if key in setting_types() and not (key in groups() and value is None):
            Entry(cell.name, key, key, value).typed()
    _require("nodes", _is_flat(cell.nodes) and cell.nodes.keys() <= set(stage_names()))
    _require("nodes", all(isinstance(node, str) and node.isalnum() for node in cell.nodes.values()))
    return cell


def _is_flat(value: object) -> bool:
    """Whether it is a mapping of JSON scalars."""
    return isinstance(value, dict) and all(isinstance(one, str | int | float | None) for one in value.values())


def _require(name: str, sound: bool) -> None:
    if not sound:
        raise ValueError(f"{name!r} is not as a run writes it")
