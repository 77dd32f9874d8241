"""Int8 networks as logged models of MLflow, which load without this repository, and their registration."""

import importlib.metadata
import json
import re
import shutil
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
from quant.engines.catalog import runtime

SERVING_FILE = Path(__file__).with_name("serving.py")
CODE_PATHS = (ROOT / "model", ROOT / "quant")
_NOT_RUN = ("quant/analysis", "quant/inspection", "quant/operator_times")
"""Code that looks at networks, and that no network needs to run."""
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
    logged = client.create_logged_model(
        experiment_id,
        name=re.sub(r"[/:.%\"']", "_", cell_name),
        source_run_id=run_id,
        tags={"graph_hash": model.graph_hash, "cell": cell_name},
        params={name: spelling(value) for name, value in model.recipe.items()},
        model_type=f"int8 {model.task} network",
    )
    with tempfile.TemporaryDirectory(prefix="logged-model-") as scratch:
        folder = Path(scratch) / "model"
        mlflow.pyfunc.save_model(
            folder,
            python_model=str(SERVING_FILE),
            artifacts=_artifacts(model),
            code_paths=[str(path) for path in CODE_PATHS],
            pip_requirements=model_requirements(str(model.recipe.get("engine")), model.postprocess is not None),
            signature=_signature(model),
            model_config={"dtype": model.example.dtype.name},
            metadata={"task": model.task, "classes": list(model.classes)},
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
        for part in _NOT_RUN:
            shutil.rmtree(folder / "code" / part)
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


def model_requirements(engine: str = "", runs_task: bool = False) -> list[str]:
    """Return what a logged model needs, pinned to the versions installed here (without local suffixes).

    ``runs_task``: the file of a task is run when it is loaded, and that of most has metrics.
    """
    names = (*MODEL_PACKAGES, *runtime(engine), *(("torchmetrics",) if runs_task else ()))
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in names]


def _artifacts(model: ModelArtifact) -> dict[str, str]:
    files = {"network": model.folder, "source": model.source, "task": model.postprocess}
    return {name: str(path) for name, path in files.items() if path is not None}


def _signature(model: ModelArtifact) -> ModelSignature:
    inputs = Schema([_tensors(None, model.example)])
    if model.answers is None:
        return ModelSignature(inputs=inputs)
    return ModelSignature(inputs, Schema([_tensors(name or None, found) for name, found in model.answers.items()]))


def _tensors(name: str | None, example: np.ndarray) -> TensorSpec:
    """Any number of what the example has one of."""
    return TensorSpec(example.dtype, (-1, *example.shape[1:]), name)
