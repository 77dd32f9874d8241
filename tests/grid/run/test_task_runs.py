"""What comes after a finished cell of any task: its file with card and script, and its logged model."""

import json
import subprocess
import sys
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from grid.run.recorder import Recorder
from grid.storage.result_store import StageStore
from grid.tracking.logged_models import MODEL_TAG
from model.data.rooms.labels import FURNITURE
from quant.engines import catalog
from tests.grid.run.task_runs import SMALL_NETWORK, TWO_HEADS, TaskRun, finished
from tests.grid.tiny import SIZE
from tests.grid.tracking.tracking_cells import write

KINDS = list(FURNITURE)
WRITTEN = pytest.mark.skipif(catalog.missing("onnxruntime") is not None, reason=str(catalog.missing("onnxruntime")))


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A folder with the user's own files."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "small.py").write_text(SMALL_NETWORK)
    (folder / "two_heads.py").write_text(TWO_HEADS)
    return folder


@pytest.fixture(scope="module")
def classes(files, tmp_path_factory) -> TaskRun:
    return finished(tmp_path_factory.mktemp("classes"), "classification", files / "small.py")


@pytest.fixture(scope="module")
def heads(files, tmp_path_factory) -> TaskRun:
    return finished(tmp_path_factory.mktemp("heads"), str(files / "two_heads.py"), files / "two_heads.py")


def recorded(run: TaskRun, stage: str = "evaluate") -> Path:
    (cell,) = (cell for cell in run.files.plan.cells if cell.name == run.cell)
    return run.storage / "stages" / cell.nodes[stage]


def printed(out: Path, given: Path) -> str:
    command = [sys.executable, str(out / "run.py"), str(given)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@WRITTEN
def test_a_classifiers_card_and_script_speak_of_classes(classes, files, tmp_path):
    out, network = tmp_path / "out", str(files / "small.py")
    assert classes.export("--engine", "onnxruntime", "--network", network, "--out", str(out)) == 0
    card = json.loads((out / "card.json").read_text())
    assert card["task"] == "classification"
    assert (card["input"]["shape"], card["input"]["resize"]) == ([1, 3, SIZE, SIZE], "whole")
    assert card["input"]["mean"] == [0.485, 0.456, 0.406]
    assert (card["output"]["name"], card["output"]["shape"], card["output"]["classes"]) == ("logits", [1, 4], KINDS)
    metrics = json.loads((recorded(classes) / "result.json").read_text())["metrics"]
    assert card["files"][0]["metrics"]["top1"] == metrics["top1"]
    assert card["files"][0]["metrics"]["cross_entropy"] == pytest.approx(metrics["cross_entropy"], abs=0.01)
    picture = classes.pack.images("test", [0])[0].permute(1, 2, 0).numpy()
    Image.fromarray(picture).save(tmp_path / "room.png")
    lines = [line.split() for line in printed(out, tmp_path / "room.png").splitlines()]
    expected = torch.from_numpy(np.load(recorded(classes) / "predictions.npy"))[0].softmax(0)
    assert [name for _, name in lines] == [KINDS[index] for index in expected.argsort(descending=True)]
    shares = [float(share.removesuffix("%")) / 100 for share, _ in lines]
    assert shares == pytest.approx(expected.sort(descending=True).values.tolist(), abs=0.01)


@WRITTEN
def test_an_own_tasks_card_lists_its_outputs_and_its_script_writes_them(heads, files, tmp_path):
    out = tmp_path / "out"
    assert heads.export("--engine", "onnxruntime", "--task", str(files / "two_heads.py"), "--out", str(out)) == 0
    card = json.loads((out / "card.json").read_text())
    assert card["input"]["shape"] == [1, 2, 16, 24]
    assert "mean" not in card["input"]
    assert "not normalized" in card["input"]["preprocessing"]
    told = [(output["name"], output["shape"]) for output in card["output"]]
    assert told == [("size", [1, 3]), ("heat", [1, 1, 16, 24])]
    metrics = json.loads((recorded(heads) / "result.json").read_text())["metrics"]
    assert card["files"][0]["metrics"]["heat_error"] == pytest.approx(metrics["heat_error"], rel=0.01)
    np.save(tmp_path / "field.npy", heads.pack.images("test", [0])[0].numpy())
    assert printed(out, tmp_path / "field.npy").splitlines() == ["size: [1, 3]", "heat: [1, 1, 16, 24]"]
    found = np.load(tmp_path / "field.outputs.npz")
    for name in ("size", "heat"):
        expected = np.load(recorded(heads) / f"predictions.{name}.npy")[:1]
        assert np.abs(found[name] - expected).max() < 0.02 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("run", "named", "message"),
    [
        ("heads", None, "--export: shelf has the task own/two_heads, and code runs only from a file that you name"),
        ("heads", "missing/two_heads.py", "missing/two_heads.py: cannot be read"),
        ("heads", "small.py", "small.py: is not the task own/two_heads"),
        ("heads", "segmentation", "is not the task own/two_heads"),
        ("classes", "segmentation", "--task: 'segmentation' is not the task of shelf; expected classification"),
    ],
)
def test_an_export_wants_the_task_of_its_run(run, named, message, request, files, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("grid.run.export.cell.missing", lambda engine: None)
    monkeypatch.chdir(files)
    given = ["--task", named] if named else []
    out = tmp_path / "out"
    assert request.getfixturevalue(run).export("--engine", "onnxruntime", "--out", str(out), *given) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


def logged(run: TaskRun, tracking) -> Path:
    """The folder of the logged model of the run's int8 cell, as a run logs it."""
    store = StageStore(run.storage)
    recorder = Recorder(run.files, store, run.pack)
    (cell,) = (cell for cell in run.files.plan.cells if cell.name == run.cell)
    model = recorder._model(cell, {"status": "ok", "graph_hash": "h"})
    written = tracking.client.get_run(write(tracking, tracking.parent("grid", {}, {}), model=model))
    logged_model = tracking.client.get_logged_model(written.data.tags[MODEL_TAG].removeprefix("models:/"))
    return Path(logged_model.artifact_location.removeprefix("file://"))


@pytest.fixture
def load(monkeypatch):
    """Loads a logged model in this process, which leaves no trace."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    return lambda folder: mlflow.pyfunc.load_model(str(folder))


def test_a_logged_classifier_answers_with_probabilities_and_knows_its_classes(classes, tracking, load):
    folder = logged(classes, tracking)
    about = yaml.safe_load((folder / "MLmodel").read_text())
    assert about["metadata"] == {"task": "classification", "classes": KINDS}
    (inputs,), (outputs,) = (json.loads(about["signature"][name]) for name in ("inputs", "outputs"))
    assert inputs["tensor-spec"] == {"dtype": "uint8", "shape": [-1, 3, SIZE, SIZE]}
    assert outputs["tensor-spec"] == {"dtype": "float32", "shape": [-1, 4]}
    found = load(folder).predict(classes.pack.images("test").numpy())
    expected = torch.from_numpy(np.load(recorded(classes) / "predictions.npy")).softmax(1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_logged_model_of_an_own_task_answers_what_its_file_makes_of_outputs(heads, tracking, load):
    folder = logged(heads, tracking)
    about = yaml.safe_load((folder / "MLmodel").read_text())
    (inputs,) = json.loads(about["signature"]["inputs"])
    assert inputs["tensor-spec"] == {"dtype": "float32", "shape": [-1, 2, 16, 24]}
    assert about["signature"]["outputs"] is None
    model, fields = load(folder), heads.pack.images("test").numpy()
    heat = np.load(recorded(heads) / "predictions.heat.npy")
    assert model.predict(fields).tolist() == heat.reshape(len(heat), -1).argmax(1).tolist()
    with pytest.raises(Exception, match="uint8"):
        model.predict(fields.astype(np.uint8))
