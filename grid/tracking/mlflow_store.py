"""Results <-> MLflow: one parent run a grid, one child run a cell, the int8 network as a logged model.

Written by the driver alone, through the client (no global active run). Every write can be repeated: a run is
found again by its tag, a finished one with the same content is left alone, an unfinished one is completed.
"""

import fcntl
import hashlib
import importlib.metadata
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # a dead server is told in seconds, not minutes
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

import mlflow.pyfunc
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import Schema, TensorSpec
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE
from sqlalchemy.exc import SQLAlchemyError

from grid.paths import ROOT
from grid.secrets import masked
from grid.tracking.uri import checked_uri
from model.errors import InputError
from quant.engines.catalog import runtime

SERVING_FILE = Path(__file__).with_name("serving.py")
CODE_PATHS = (ROOT / "model", ROOT / "quant")
MODEL_PACKAGES = ("torch", "torchvision", "timm", "numpy", "safetensors", "h5py", "mlflow")
RUN_TAG, CELL_TAG, CONTENT_TAG, MODEL_TAG = "grid.run", "grid.cell", "grid.content", "grid.model_uri"
ALIAS = "recommended"
RUN_STATUS = {"ok": "FINISHED", "excluded": "FINISHED", "failed": "FAILED", "skipped": "KILLED"}
METRICS_A_BATCH, PARAMS_A_BATCH = 50, 100
LONGEST_VALUE = 6000  # MLflow's limit for a param
Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class ModelArtifact:
    """An int8 network to log: its folder, which ``quant.artifact.load_network`` reads, and its graph's hash.

    ``example`` is an image uint8 [1,3,S,S], ``source`` the file of a network of the user's own, ``recipe`` all of its
    settings.
    """

    folder: Path
    example: np.ndarray
    graph_hash: str
    source: Path | None = None
    recipe: Mapping[str, Scalar] = field(default_factory=dict)


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
        with open(artifact_root / ".creating.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                self.client = MlflowClient(tracking_uri=uri)
                found = self.client.get_experiment_by_name(experiment)
                if found is None:
                    location = None if uri.startswith("http") else artifact_root.as_uri()
                    found_id = self.client.create_experiment(experiment, artifact_location=location)
            except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
                problem = masked(str(error).strip().partition("\n")[0])
                raise InputError(f"--tracking-uri {masked(uri)}", problem, "a usable MLflow store") from error
        if found is not None and found.lifecycle_stage != "active":
            hint = f"`mlflow experiments restore -x {found.experiment_id}` brings it back."
            raise InputError(masked(uri), f"the experiment {experiment!r} was deleted", "an active one", hint)
        self.experiment_id: str = found.experiment_id if found else found_id
        self._children: dict[str, dict[str, _Child]] = {}

    def parent(self, run_name: str, params: Mapping[str, Scalar], tags: Mapping[str, str]) -> str:
        """Return the id of the grid's run, opened or made; it stays RUNNING until ``close``."""
        found = self._search(f"tags.`{RUN_TAG}` = {_quoted(run_name)}")
        if found:
            run = found[0]
            self.client.update_run(run.info.run_id, status="RUNNING")
        else:
            run = self.client.create_run(self.experiment_id, run_name=run_name, tags={RUN_TAG: run_name})
        self._write(run, params=params, tags=tags)
        return run.info.run_id

    def write_cell(
        self,
        parent_id: str,
        cell_key: str,
        cell_name: str,
        params: Mapping[str, Scalar],
        metrics: Mapping[str, float | None],
        history: Sequence[Mapping[str, float | None]] = (),
        artifacts: Iterable[Path] = (),
        model: ModelArtifact | None = None,
        tags: Mapping[str, str] | None = None,
        status: str = "ok",
        reason: str = "",
    ) -> str:
        """Write one cell as an ended child run and return its id; an equal one that is there is left alone.

        ``history`` holds one dict an epoch with its ``epoch``; a metric that is None is left out. ``status``
        is ok, failed, excluded or skipped. The metrics are linked with the logged model.
        """
        tags = dict(tags or {}) | {"grid.status": status, "grid.reason": reason[:LONGEST_VALUE]}
        artifacts = [Path(path) for path in artifacts]
        content = _content_hash(params, metrics, list(history), tags, artifacts, model)
        children = self._children_of(parent_id)
        child = children.get(cell_key)
        if child is not None and child.status in RUN_STATUS.values() and child.content == content:
            return child.run_id
        if child is None:
            identity = {MLFLOW_PARENT_RUN_ID: parent_id, CELL_TAG: cell_key}
            run = self.client.create_run(self.experiment_id, run_name=cell_name, tags=identity)
            children[cell_key] = _child(run)  # if writing fails below, the next try takes this run
        else:
            run = self.client.get_run(child.run_id)
        run_id = run.info.run_id
        # A repeated write of the same points is no second point only if they carry the same time.
        rewritten = run.info.status in RUN_STATUS.values()
        now = int(time.time() * 1000) if rewritten else run.info.start_time
        self._write(run, params=params)
        model_id = None
        if model is not None:
            model_id = self._log_model(run_id, cell_name, model)
            tags[MODEL_TAG] = f"models:/{model_id}"
        points = [
            Metric(name, float(value), now, 0, model_id=model_id, run_id=run_id)
            for name, value in metrics.items()
            if value is not None
        ]
        points += [
            Metric(name, float(value), run.info.start_time, int(epoch["epoch"] or 0))
            for epoch in history
            for name, value in epoch.items()
            if name != "epoch" and value is not None
        ]
        for start in range(0, len(points), METRICS_A_BATCH):
            self.client.log_batch(run_id, metrics=points[start : start + METRICS_A_BATCH])
        for path in artifacts:
            self.client.log_artifact(run_id, str(path))
        if reason:
            tags[MLFLOW_RUN_NOTE] = f"{status}: {reason}"[:LONGEST_VALUE]
        self._write(run, tags=tags | {CONTENT_TAG: content})
        self.client.set_terminated(run_id, RUN_STATUS[status])
        children[cell_key] = _Child(run_id, RUN_STATUS[status], content)
        return run_id

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

    def register(self, run_id: str, name: str) -> str:
        """Register the model of a cell's run, with the alias ``recommended``; returns its URI.

        A model that is registered already is not registered twice. Raises InputError for a name MLflow refuses.
        """
        model_id = self.client.get_run(run_id).data.tags[MODEL_TAG].removeprefix("models:/")
        try:
            if not self.client.search_registered_models(f"name = {_quoted(name)}"):
                self.client.create_registered_model(name)
            # Not models:/<id>, which MLflow looks up in the process's own store instead of this client's.
            place = self.client.get_logged_model(model_id).artifact_location
            versions = self.client.search_model_versions(f"name = {_quoted(name)}")
            version = next((one for one in versions if one.source == place), None)
            if version is None:
                version = self.client.create_model_version(name, place, run_id, model_id=model_id)
            self.client.set_registered_model_alias(name, ALIAS, version.version)
        except MlflowException as error:
            problem = masked(str(error).strip().partition("\n")[0])
            raise InputError(f"--register {name}", problem, "the name of an MLflow model") from error
        return f"models:/{name}@{ALIAS}"

    def _children_of(self, parent_id: str) -> dict[str, _Child]:
        """Child runs by cell key, read once: this process alone writes them."""
        if parent_id not in self._children:
            runs = self._search(f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent_id}'")
            keyed = {run.data.tags.get(CELL_TAG): run for run in runs}
            self._children[parent_id] = {key: _child(run) for key, run in keyed.items() if key}
        return self._children[parent_id]

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
        wanted = {name: _spelling(value) for name, value in (params or {}).items()}
        have = run.data.params
        notes = {f"now.{name}": value for name, value in wanted.items() if have.get(name, value) != value}
        missing = [Param(name, value) for name, value in wanted.items() if name not in have]
        for start in range(0, len(missing), PARAMS_A_BATCH):
            self.client.log_batch(run.info.run_id, params=missing[start : start + PARAMS_A_BATCH])
        labels = [RunTag(name, str(value)) for name, value in {**(tags or {}), **notes}.items()]
        for start in range(0, len(labels), PARAMS_A_BATCH):
            self.client.log_batch(run.info.run_id, tags=labels[start : start + PARAMS_A_BATCH])

    def _log_model(self, run_id: str, cell_name: str, model: ModelArtifact) -> str:
        """Return the id of the run's logged model, made unless it is there whole with the same network."""
        for old in self.client.search_logged_models([self.experiment_id], f"source_run_id = '{run_id}'"):
            if old.status == LoggedModelStatus.READY and old.tags.get("graph_hash") == model.graph_hash:
                return old.model_id
            self.client.delete_logged_model(old.model_id)
        logged = self.client.create_logged_model(
            self.experiment_id,
            name=re.sub(r"[/:.%\"']", "_", cell_name),
            source_run_id=run_id,
            tags={"graph_hash": model.graph_hash, "cell": cell_name},
            params={name: _spelling(value) for name, value in model.recipe.items()},
            model_type="int8 depth network",
        )
        with tempfile.TemporaryDirectory(prefix="logged-model-") as scratch:
            folder = Path(scratch) / "model"
            mlflow.pyfunc.save_model(
                folder,
                python_model=str(SERVING_FILE),
                artifacts={"network": str(model.folder)} | ({"source": str(model.source)} if model.source else {}),
                code_paths=[str(path) for path in CODE_PATHS],
                pip_requirements=model_requirements(str(model.recipe.get("engine"))),
                signature=_signature(model.example.shape[-1]),
                input_example=model.example,
                mlflow_model=Model(
                    artifact_path=logged.artifact_location,
                    model_uuid=logged.model_id,
                    run_id=run_id,
                    model_id=logged.model_id,
                ),
            )
            for example in folder.glob("*input_example.json"):  # indented, one pixel a line: 2 MB
                example.write_text(json.dumps(json.loads(example.read_text()), separators=(",", ":")))
            self.client.log_model_artifacts(logged.model_id, str(folder))
        self.client.log_outputs(run_id, models=[LoggedModelOutput(logged.model_id, step=0)])
        self.client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
        return logged.model_id


def runs_page(uri: str, experiment: str) -> str:
    """The part of an address of MLflow's pages that shows the runs of an experiment; "" where there is none."""
    found = MlflowClient(tracking_uri=uri).get_experiment_by_name(experiment)
    return f"/#/experiments/{found.experiment_id}/runs" if found else ""


def _child(run: Run) -> _Child:
    return _Child(run.info.run_id, run.info.status, run.data.tags.get(CONTENT_TAG))


def model_requirements(engine: str = "") -> list[str]:
    """Return what a logged model needs, pinned to the versions installed here (without local suffixes)."""
    names = (*MODEL_PACKAGES, *runtime(engine))
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in names]


def _signature(size: int) -> ModelSignature:
    images = TensorSpec(np.dtype(np.uint8), (-1, 3, size, size), name=None)
    depth_m = TensorSpec(np.dtype(np.float32), (-1, 1, size // 4, size // 4), name=None)
    return ModelSignature(inputs=Schema([images]), outputs=Schema([depth_m]))


def _spelling(value: Scalar) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:LONGEST_VALUE]


def _quoted(text: str) -> str:
    if "'" in text and '"' in text:
        raise InputError(f"run name {text!r}", "holds both kinds of quotes", "at most one kind")
    return f'"{text}"' if "'" in text else f"'{text}'"


def _content_hash(
    params: Mapping[str, Any],
    metrics: Mapping[str, Any],
    history: list[Mapping[str, Any]],
    tags: Mapping[str, str],
    artifacts: list[Path],
    model: ModelArtifact | None,
) -> str:
    files = [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in artifacts if path.is_file()]
    network = model.graph_hash if model else None
    whole = [dict(params), dict(metrics), [dict(epoch) for epoch in history], dict(tags), files, network]
    return hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()[:20]
