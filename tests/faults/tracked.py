"""What MLflow has of runs, compared with the store, which is the only truth: lost, doubled or different."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run

from grid.results.rows import Row, history
from grid.run.files import RunFiles
from grid.storage.result_store import StageStore
from grid.storage.runs import run_folder
from grid.tracking.uri import EXPERIMENT


@dataclass(frozen=True)
class Tracked:
    """An experiment: its runs and models, without deleted ones, and its files (an S3 bucket, in which ``prefix``)."""

    client: MlflowClient
    s3: Any
    bucket: str
    prefix: str

    def differences(self, storage: Path, names: Iterable[str]) -> list[str]:
        """What is not as the store has it, of all runs that there are; each a line, none is what is promised."""
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        runs = self._all(self.client.search_runs, experiment.experiment_id)
        models = self._all(self.client.search_logged_models, experiment.experiment_id)
        parents = [run for run in runs if "grid.run" in run.data.tags]
        lines = []
        for name, count in Counter(run.data.tags["grid.run"] for run in parents).items():
            lines += [f"{name}: {count} parents"] if count != 1 or name not in names else []
        lines += [f"{name}: no parent" for name in names if name not in {run.data.tags["grid.run"] for run in parents}]
        children = defaultdict(list)
        for run in runs:
            children[run.data.tags.get("mlflow.parentRunId")].append(run)
        made = defaultdict(list)
        for model in models:
            made[model.source_run_id].append(model)
        for parent in parents:
            name = parent.data.tags["grid.run"]
            lines += [f"{name}: {parent.info.status}"] if parent.info.status != "FINISHED" else []
            below = children.pop(parent.info.run_id, [])
            found = self._of_run(storage, name, below, made)
            lines += [f"{name}/{line}" for line in found]
        lines += [f"{run.info.run_name} belongs to no run" for run in children.pop(None, []) if run not in parents]
        lines += [f"runs below a run that is not there: {len(left)}" for left in children.values()]
        lines += [f"models of a run that is not there: {len(left)}" for left in made.values()]
        return lines

    def _of_run(self, storage: Path, name: str, runs: list[Run], made: dict[str, list[LoggedModel]]) -> list[str]:
        """Differences of the cells of one run; takes their models out of ``made``."""
        store, files = StageStore(storage), RunFiles.load(run_folder(storage, name))
        cells = {cell.key: cell for cell in files.plan.cells}
        rows = {row["cell"]: row for row in files.measured(store)}
        by_key = defaultdict(list)
        for run in runs:
            by_key[run.data.tags["grid.cell"]].append(run)
        lines = [f"{key}: {len(found)} runs" for key, found in by_key.items() if len(found) != 1 or key not in cells]
        lines += [f"{cell.name}: no run" for key, cell in cells.items() if key not in by_key]
        for key, cell in cells.items():
            for run in by_key.get(key, ()):
                row, models = rows[cell.name], made.pop(run.info.run_id, [])
                points = history(cell, store)
                folder = store.path(cell.nodes["convert"]) if "convert" in cell.nodes else None
                found = [*self._of_cell(row, run, points), *self._of_models(row, run, models, folder)]
                lines += [f"{cell.name}: {line}" for line in found]
        return lines

    def _of_cell(self, row: Row, run: Run, epochs: list[dict[str, float]]) -> list[str]:
        expected = {name: value for name, value in row.items() if isinstance(value, float)}
        lines = [] if run.info.status == "FINISHED" else [run.info.status]
        lines += [] if row["mlflow_run_id"] == run.info.run_id else ["its row names another run"]
        for name, value in expected.items():
            points = [point.value for point in self.client.get_metric_history(run.info.run_id, name)]
            steps = [epoch[name] for epoch in epochs if epoch.get(name) is not None]
            if sorted(points) != sorted([value, *steps]):
                lines.append(f"{name} is {points}, not {[value, *steps]}")
        return lines

    def _of_models(self, row: Row, run: Run, models: list[LoggedModel], folder: Path | None) -> list[str]:
        if folder is None:
            return ["a model of a cell that has none"] if models else []
        if len(models) != 1:
            return [f"{len(models)} models"]
        (model,) = models
        linked = [output.model_id for output in run.outputs.model_outputs]
        lines = [] if model.status == "READY" else [f"its model is {model.status}"]
        lines += [] if model.tags["graph_hash"] == row["graph_hash"] else ["the model of another network"]
        lines += [] if linked == [model.model_id] else [f"linked with {linked}, not with {model.model_id}"]
        for file in filter(Path.is_file, folder.rglob("*")):
            key = f"{self.prefix}/{run.info.experiment_id}/models/{model.model_id}/artifacts/artifacts/"
            key += f"{folder.name}/{file.relative_to(folder)}"
            try:
                kept = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            except self.s3.exceptions.NoSuchKey:
                lines.append(f"its model lacks {file.name}")
                continue
            if hashlib.sha256(kept).digest() != hashlib.sha256(file.read_bytes()).digest():
                lines.append(f"its model has another {file.name}")
        return lines

    @staticmethod
    def _all(search: Any, experiment_id: str) -> list[Any]:
        found, token = [], None
        while True:
            page = search([experiment_id], page_token=token)
            found += page
            token = page.token
            if not token:
                return found
