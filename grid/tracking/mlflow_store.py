"""Results <-> MLflow: one parent run a grid, one child run a cell, the int8 network as a logged model.

Written by the driver alone, through the client (no global active run). Every write can be repeated: a run is
found again by its tag, a finished one with the same content is left alone, an unfinished one is completed. MLflow's
client repeats requests whose answer was lost, and what they make is there twice then: the first is kept.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE
from sqlalchemy.exc import SQLAlchemyError

from grid.secrets import masked
from grid.storage.locks import locked
from grid.tracking.cell_run import CellRun
from grid.tracking.logged_models import MODEL_TAG, log_model
from grid.tracking.uri import checked_uri
from grid.tracking.values import LONGEST_VALUE, Scalar, quoted, spelling
from model.errors import InputError
from model.files import file_sha256

RUN_TAG, CELL_TAG, CONTENT_TAG = "grid.run", "grid.cell", "grid.content"
RUN_STATUS = {"ok": "FINISHED", "excluded": "FINISHED", "failed": "FAILED", "skipped": "KILLED"}
METRICS_A_BATCH, PARAMS_A_BATCH = 50, 100


@dataclass(frozen=True)
class _Child:
    """What is remembered of a cell's run: a whole run holds all its params and figures, for thousands of cells."""

    run_id: str
    status: str
    content: str | None


class Tracking:
    """An experiment of an MLflow store: SQLite or another database, or an http(s) tracking server.

    ``artifact_root`` is where a *new* experiment keeps its files; a server decides that itself. Raises
    InputError when the URI is of no use, the server does not answer, or the experiment was deleted.
    """

    def __init__(self, uri: str, experiment: str, artifact_root: Path) -> None:
        self.uri = checked_uri(uri)
        for noisy in ("alembic", "mlflow.store.db.utils", "mlflow.pyfunc"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        artifact_root = Path(artifact_root).resolve()
        artifact_root.mkdir(parents=True, exist_ok=True)
        # Two processes that migrate one fresh SQLite at the same time crash each other.
        with locked(artifact_root / ".creating.lock"):
            try:
                self.client = MlflowClient(tracking_uri=uri)
                found = self.client.get_experiment_by_name(experiment)
                if found is None:
                    found = self._new_experiment(experiment, artifact_root)
            except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
                problem = masked(str(error).strip().partition("\n")[0])
                raise InputError(f"--tracking-uri {masked(uri)}", problem, "a usable MLflow store") from error
        if found.lifecycle_stage != "active":
            hint = f"`mlflow experiments restore -x {found.experiment_id}` brings it back."
            raise InputError(masked(uri), f"the experiment {experiment!r} was deleted", "an active one", hint)
        self.experiment_id: str = found.experiment_id
        self._children: dict[str, dict[str, _Child]] = {}

    def parent(self, run_name: str, params: Mapping[str, Scalar], tags: Mapping[str, str]) -> str:
        """Return the id of the grid's run, opened or made; it stays RUNNING until ``close``."""
        query = f"tags.`{RUN_TAG}` = {quoted(run_name)}"
        found = self._search(query)
        if found:
            run = self._first(found)
            self.client.update_run(run.info.run_id, status="RUNNING")
        else:
            run = self._new_run(query, run_name, {RUN_TAG: run_name})
        self._write(run, params=params, tags=tags)
        return str(run.info.run_id)

    def write_cell(self, parent_id: str, cell: CellRun) -> str:
        """Write one cell as an ended child run and return its id; an equal one that is there is left alone."""
        tags = {**cell.tags, "grid.status": cell.status, "grid.reason": cell.reason[:LONGEST_VALUE]}
        content = _content_hash(cell, tags)
        children = self._children_of(parent_id)
        child = children.get(cell.key)
        if child is not None and child.status in RUN_STATUS.values() and child.content == content:
            return child.run_id
        if child is None:
            identity = {MLFLOW_PARENT_RUN_ID: parent_id, CELL_TAG: cell.key}
            query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in identity.items())
            run = self._new_run(query, cell.name, identity)
            children[cell.key] = _child(run)  # if writing fails below, the next try takes this run
        else:
            run = self.client.get_run(child.run_id)
        run_id = run.info.run_id
        # A repeated write of the same points is no second point only if they carry the same time.
        rewritten = run.info.status in RUN_STATUS.values()
        now = int(time.time() * 1000) if rewritten else run.info.start_time
        self._write(run, params=cell.params)
        model_id = None
        if cell.model is not None:
            model_id = log_model(self.client, self.experiment_id, run_id, cell.name, cell.model)
            tags[MODEL_TAG] = f"models:/{model_id}"
        points = [
            Metric(name, float(value), now, 0, model_id=model_id, run_id=run_id)
            for name, value in cell.metrics.items()
            if value is not None
        ]
        points += [
            Metric(name, float(value), run.info.start_time, int(epoch["epoch"] or 0))
            for epoch in cell.history
            for name, value in epoch.items()
            if name != "epoch" and value is not None
        ]
        for start in range(0, len(points), METRICS_A_BATCH):
            self.client.log_batch(run_id, metrics=points[start : start + METRICS_A_BATCH])
        for path in cell.artifacts:
            self.client.log_artifact(run_id, str(path))
        if cell.reason:
            tags[MLFLOW_RUN_NOTE] = f"{cell.status}: {cell.reason}"[:LONGEST_VALUE]
        self._write(run, tags=tags | {CONTENT_TAG: content})
        self.client.set_terminated(run_id, RUN_STATUS[cell.status])
        children[cell.key] = _Child(run_id, RUN_STATUS[cell.status], content)
        return str(run_id)

    def close(
        self,
        parent_id: str,
        artifacts: Iterable[Path] = (),
        metrics: Mapping[str, float | None] | None = None,
        status: str = "FINISHED",
    ) -> None:
        """End the grid's run with its files and figures; a child that a kill left open becomes KILLED."""
        now = int(time.time() * 1000)
        named = (metrics or {}).items()
        points = [Metric(name, float(value), now, 0) for name, value in named if value is not None]
        self.client.log_batch(parent_id, metrics=points)
        for path in artifacts:
            self.client.log_artifact(parent_id, str(path))
        for child in self._children_of(parent_id).values():
            if child.status not in RUN_STATUS.values():
                self.client.set_terminated(child.run_id, "KILLED")
        self.client.set_terminated(parent_id, status)

    def _children_of(self, parent_id: str) -> dict[str, _Child]:
        """Child runs by cell key, read once: this process alone writes them."""
        if parent_id not in self._children:
            keyed: dict[str, list[Run]] = {}
            for run in self._search(f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent_id}'"):
                if key := run.data.tags.get(CELL_TAG):
                    keyed.setdefault(key, []).append(run)
            self._children[parent_id] = {key: _child(self._first(runs)) for key, runs in keyed.items()}
        return self._children[parent_id]

    def _new_experiment(self, name: str, artifact_root: Path) -> Experiment:
        """Make the experiment; another driver may have made it a moment ago."""
        location = None if self.uri.startswith("http") else artifact_root.as_uri()
        try:
            return self.client.get_experiment(self.client.create_experiment(name, artifact_location=location))
        except MlflowException:
            found = self.client.get_experiment_by_name(name)
            if found is None:
                raise
            return found

    def _new_run(self, query: str, name: str, tags: Mapping[str, str]) -> Run:
        """Make a run, which ``query`` finds then, and no second one."""
        made = self.client.create_run(self.experiment_id, run_name=name, tags=dict(tags))
        return self._first(self._search(query) or [made])

    def _first(self, runs: Iterable[Run]) -> Run:
        """The one of several runs of the same that has ended, or was made first; the others are deleted."""
        first, *others = sorted(
            runs, key=lambda run: (run.info.status == "RUNNING", run.info.start_time, run.info.run_id)
        )
        for other in others:
            self.client.delete_run(other.info.run_id)
        return first

    def _search(self, query: str) -> list[Run]:
        runs: list[Run] = []
        token = None
        while True:
            page = self.client.search_runs([self.experiment_id], query, ViewType.ACTIVE_ONLY, 1000, page_token=token)
            runs.extend(page)
            token = page.token
            if not token:
                return runs

    def _write(
        self, run: Run, params: Mapping[str, Scalar] | None = None, tags: Mapping[str, str] | None = None
    ) -> None:
        """Write what the run lacks; params cannot change, so a changed one becomes the tag ``now.<name>``."""
        wanted = {name: spelling(value) for name, value in (params or {}).items()}
        have = run.data.params
        notes = {f"now.{name}": value for name, value in wanted.items() if have.get(name, value) != value}
        missing = [Param(name, value) for name, value in wanted.items() if name not in have]
        for start in range(0, len(missing), PARAMS_A_BATCH):
            self.client.log_batch(run.info.run_id, params=missing[start : start + PARAMS_A_BATCH])
        labels = [RunTag(name, str(value)) for name, value in {**(tags or {}), **notes}.items()]
        for start in range(0, len(labels), PARAMS_A_BATCH):
            self.client.log_batch(run.info.run_id, tags=labels[start : start + PARAMS_A_BATCH])


def runs_page(uri: str, experiment: str) -> str:
    """The part of an address of MLflow's pages that shows the runs of an experiment; "" where there is none."""
    found = MlflowClient(tracking_uri=uri).get_experiment_by_name(experiment)
    return f"/#/experiments/{found.experiment_id}/runs" if found else ""


def _child(run: Run) -> _Child:
    return _Child(run.info.run_id, run.info.status, run.data.tags.get(CONTENT_TAG))


def _content_hash(cell: CellRun, tags: Mapping[str, str]) -> str:
    files = [(path.name, file_sha256(path)) for path in cell.artifacts if path.is_file()]
    network = cell.model.graph_hash if cell.model else None
    epochs = [dict(epoch) for epoch in cell.history]
    whole = [dict(cell.params), dict(cell.metrics), epochs, dict(tags), files, network]
    return hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()[:20]
