"""Int8 networks as logged models of MLflow, which load without this repository, and their registration."""

import importlib.metadata
import json
import re
import tempfile
from pathlib import Path

import mlflow.pyfunc
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import Schema, TensorSpec

from grid.paths import ROOT
from grid.secrets import masked
from grid.tracking.cell_run import ModelArtifact
from grid.tracking.values import quoted, spelling
from model.errors import InputError
from model.network.spec import DEPTH
from quant.artifact import read_form
from quant.engines.catalog import runtime

SERVING_FILE = Path(__file__).with_name("serving.py")
CODE_PATHS = (ROOT / "model", ROOT / "quant")
MODEL_PACKAGES = ("torch", "torchvision", "timm", "numpy", "safetensors", "h5py", "mlflow")
MODEL_TAG, ALIAS = "grid.model_uri", "recommended"


def log_model(client: MlflowClient, experiment_id: str, run_id: str, cell_name: str, model: ModelArtifact) -> str:
    """Return the id of the run's logged model, made unless it is there whole with the same network; the only one."""
    models = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
    ready = (old for old in models if old.status == LoggedModelStatus.READY)
    whole = next((old.model_id for old in ready if old.tags.get("graph_hash") == model.graph_hash), None)
    model_id = whole or _new_model(client, experiment_id, run_id, cell_name, model)
    # Searched again: a repeated request may have made a second one, of which nobody was told.
    for other in models if whole else client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'"):
        if other.model_id != model_id:
            client.delete_logged_model(other.model_id)
    if not _is_output(client, run_id, model_id):
        try:
            client.log_outputs(run_id, models=[LoggedModelOutput(model_id, step=0)])
        except MlflowException:  # what a repeated request hears where the first was heard
            if not _is_output(client, run_id, model_id):
                raise
    return model_id


def _is_output(client: MlflowClient, run_id: str, model_id: str) -> bool:
    outputs = client.get_run(run_id).outputs
    return outputs is not None and model_id in [output.model_id for output in outputs.model_outputs]


def _new_model(client: MlflowClient, experiment_id: str, run_id: str, cell_name: str, model: ModelArtifact) -> str:
    task = read_form(model.folder).network.task
    more = ("torchmetrics",) if model.source and task != DEPTH else ()  # the network's file is also that of its metrics
    logged = client.create_logged_model(
        experiment_id,
        name=re.sub(r"[/:.%\"']", "_", cell_name),
        source_run_id=run_id,
        tags={"graph_hash": model.graph_hash, "cell": cell_name},
        params={name: spelling(value) for name, value in model.recipe.items()},
        model_type=f"int8 {task} network",
    )
    with tempfile.TemporaryDirectory(prefix="logged-model-") as scratch:
        folder = Path(scratch) / "model"
        mlflow.pyfunc.save_model(
            folder,
            python_model=str(SERVING_FILE),
            artifacts={"network": str(model.folder)} | ({"source": str(model.source)} if model.source else {}),
            code_paths=[str(path) for path in CODE_PATHS],
            pip_requirements=model_requirements(str(model.recipe.get("engine")), *more),
            signature=_signature(model.example, task),
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
        client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    return str(logged.model_id)


def register_model(client: MlflowClient, run_id: str, name: str) -> str:
    """Register the model of a cell's run, with the alias ``recommended``; returns its URI.

    A model that is registered already is not registered twice. Raises InputError for a name MLflow refuses.
    """
    model_id = client.get_run(run_id).data.tags[MODEL_TAG].removeprefix("models:/")
    try:
        if not client.search_registered_models(f"name = {quoted(name)}"):
            client.create_registered_model(name)
        # Not models:/<id>, which MLflow looks up in the process's own store instead of this client's.
        place = client.get_logged_model(model_id).artifact_location
        versions = client.search_model_versions(f"name = {quoted(name)}")
        version = next((one for one in versions if one.source == place), None)
        if version is None:
            version = client.create_model_version(name, place, run_id, model_id=model_id)
        client.set_registered_model_alias(name, ALIAS, version.version)
    except MlflowException as error:
        problem = masked(str(error).strip().partition("\n")[0])
        raise InputError(f"--register {name}", problem, "the name of an MLflow model") from error
    return f"models:/{name}@{ALIAS}"


def model_requirements(engine: str = "", *more: str) -> list[str]:
    """Return what a logged model needs, pinned to the versions installed here (without local suffixes)."""
    names = (*MODEL_PACKAGES, *runtime(engine), *more)
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in names]


def _signature(example: np.ndarray, task: str) -> ModelSignature:
    """Inputs like the example; what comes out is said of depth alone."""
    inputs = Schema([TensorSpec(example.dtype, (-1, *example.shape[1:]), name=None)])
    if task != DEPTH:
        return ModelSignature(inputs=inputs)
    size = example.shape[-1] // 4
    return ModelSignature(inputs, Schema([TensorSpec(np.dtype(np.float32), (-1, 1, size, size), name=None)]))
