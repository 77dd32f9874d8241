"""The rules of logged models: one a cell, with its figures, loading anywhere; and all of it through a server too."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch

from grid.tracking import logged_models
from grid.tracking.logged_models import MODEL_TAG, ModelArtifact, model_requirements, register_model
from grid.tracking.mlflow_store import Tracking
from model.errors import InputError
from tests.grid.tracking.tracking_cells import children, write

ROOT = Path(__file__).resolve().parents[3]


def test_logged_requirements_are_pinned_to_what_is_installed():
    pins = dict(line.split("==") for line in model_requirements())
    assert pins["torch"] == torch.__version__.partition("+")[0]
    assert {"torchvision", "timm", "numpy", "safetensors", "mlflow"} <= set(pins)


def test_a_model_is_logged_once_and_carries_the_figures_of_its_cell(tracking, int8):
    folder, images, _ = int8
    parent = tracking.parent("full-1", {}, {})
    model = ModelArtifact(folder, images[:1], "hash-1", recipe={"method": "ptq", "calibrate.images": 64})
    run_id = write(tracking, parent, model=model, history=[])
    uri = tracking.client.get_run(run_id).data.tags[MODEL_TAG]
    found = tracking.client.search_logged_models([tracking.experiment_id], "metrics.test_ssim > 0.7")
    assert [(f"models:/{logged.model_id}", logged.source_run_id) for logged in found] == [(uri, run_id)]
    assert found[0].params == {"method": "ptq", "calibrate.images": "64"}
    write(tracking, parent, model=model, history=[], metrics={"test_ssim": 0.81})
    assert tracking.client.get_run(run_id).data.tags[MODEL_TAG] == uri, "the same network is not logged twice"
    write(tracking, parent, model=ModelArtifact(folder, images[:1], "hash-2"), history=[])
    assert tracking.client.get_run(run_id).data.tags[MODEL_TAG] != uri
    assert len(tracking.client.search_logged_models([tracking.experiment_id])) == 1, "one model a cell"


def test_a_model_that_a_kill_left_half_logged_is_logged_anew(tracking, int8, monkeypatch):
    folder, images, _ = int8
    parent = tracking.parent("full-1", {}, {})
    model = ModelArtifact(folder, images[:1], "hash-1")

    def killed(*arguments) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tracking.client, "log_model_artifacts", killed)
        with pytest.raises(KeyboardInterrupt):
            write(tracking, parent, model=model)
    write(tracking, parent, model=model)
    (logged,) = tracking.client.search_logged_models([tracking.experiment_id])
    assert logged.status == "READY"
    assert [run.info.status for run in children(tracking, parent)] == ["FINISHED"]


def test_a_logged_model_is_little_more_than_its_network(tracking, int8):
    folder, images, _ = int8
    parent = tracking.parent("full-1", {}, {})
    write(tracking, parent, model=ModelArtifact(folder, images[:1], "h"))
    (logged,) = tracking.client.search_logged_models([tracking.experiment_id])
    files = [path for path in Path(logged.artifact_location.removeprefix("file://")).rglob("*") if path.is_file()]
    network = sum(path.stat().st_size for path in folder.iterdir())
    assert sum(path.stat().st_size for path in files) < network + 900_000  # the code
    assert not [path for path in files if path.suffix == ".pyc"]


def test_a_registered_model_is_one_version_whatever_is_registered_twice(tracking, int8):
    folder, images, _ = int8
    parent = tracking.parent("full-1", {}, {})
    run_id = write(tracking, parent, model=ModelArtifact(folder, images[:1], "h"))
    assert [register_model(tracking.client, run_id, "depth") for _ in range(2)] == ["models:/depth@recommended"] * 2
    (version,) = tracking.client.search_model_versions("name = 'depth'")
    found = tracking.client.get_model_version_by_alias("depth", "recommended")
    assert (found.version, found.run_id) == (version.version, run_id)
    with pytest.raises(InputError, match="--register a/b"):
        register_model(tracking.client, run_id, "a/b")


LOAD = """
import sys
import mlflow, numpy as np
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
given = np.load(sys.argv[3])
depth = model.predict(given["images"])
assert depth.dtype == np.float32 and depth.shape == given["depth"].shape, (depth.dtype, depth.shape)
np.testing.assert_array_equal(depth, given["depth"])
import quant
print("exact", quant.__file__)
try:
    model.predict(given["images"].astype(np.float32))
except Exception as error:
    print("refused", error)
"""


@pytest.mark.slow
def test_a_logged_model_computes_the_same_in_a_fresh_process_without_the_checkout(
    tracking, int8, database, tmp_path, monkeypatch
):
    folder, images, depth = int8
    checkout = tmp_path / "checkout"
    for name in ("model", "quant"):
        shutil.copytree(ROOT / name, checkout / name)
    shutil.copy(ROOT / "grid" / "tracking" / "serving.py", checkout)
    monkeypatch.setattr(logged_models, "CODE_PATHS", (checkout / "model", checkout / "quant"))
    monkeypatch.setattr(logged_models, "SERVING_FILE", checkout / "serving.py")
    network = shutil.copytree(folder, tmp_path / "network")
    parent = tracking.parent("full-1", {}, {})
    run = tracking.client.get_run(write(tracking, parent, model=ModelArtifact(network, images[:1], "h")))
    shutil.rmtree(checkout)
    shutil.rmtree(network)
    np.savez(tmp_path / "given.npz", images=images, depth=depth)
    command = [sys.executable, "-I", "-c", LOAD, database, run.data.tags[MODEL_TAG], str(tmp_path / "given.npz")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert "exact" in done.stdout, done.stderr[-3000:]
    assert str(ROOT) not in done.stdout.splitlines()[0]
    assert "refused" in done.stdout, "images that are not uint8 are an error"


@pytest.mark.slow
def test_a_served_model_answers_a_picture_over_http(tracking, int8, database, tmp_path):
    folder, images, depth = int8
    parent = tracking.parent("full-1", {}, {})
    run = tracking.client.get_run(write(tracking, parent, model=ModelArtifact(folder, images[:1], "h")))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", run.data.tags[MODEL_TAG]]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    activated = (
        f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # the shell that it starts finds uvicorn
    )
    environment = {**os.environ, "MLFLOW_TRACKING_URI": database, "PATH": activated}
    with open(tmp_path / "served.log", "w") as log:
        server = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 120
        while True:
            assert server.poll() is None, (tmp_path / "served.log").read_text()[-2000:]
            assert time.monotonic() < deadline
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        body = json.dumps({"inputs": images[:2].tolist()}).encode()
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"}
        )
        answer = json.loads(urllib.request.urlopen(asked, timeout=60).read())
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)
    np.testing.assert_allclose(np.asarray(answer["predictions"], np.float32), depth[:2], atol=1e-6)


@pytest.mark.slow
def test_the_same_calls_work_with_a_tracking_server(tmp_path, int8):
    folder, images, _ = int8
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{tmp_path}/server.db"]
    command += ["--artifacts-destination", str(tmp_path / "served"), "--workers", "1", "--port", str(port)]
    quiet = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with open(tmp_path / "server.log", "w") as log:
        server = subprocess.Popen(command, cwd=tmp_path, env=quiet, stdout=log, stderr=log, start_new_session=True)
    uri = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                tracking = Tracking(uri, "grid", tmp_path / "files")
                break
            except InputError:
                assert server.poll() is None, (tmp_path / "server.log").read_text()[-2000:]
                assert time.monotonic() < deadline
                time.sleep(0.5)
        parent = tracking.parent("full-1", {"grid": "full"}, {})
        model = ModelArtifact(folder, images[:1], "h")
        run_id = write(tracking, parent, model=model)
        assert write(Tracking(uri, "grid", tmp_path / "files"), parent, model=model) == run_id
        tracking.close(parent, [], {"cells_ok": 1.0})
        assert [run.info.status for run in children(tracking, parent)] == ["FINISHED"]
        assert len(tracking.client.search_logged_models([tracking.experiment_id], "metrics.test_ssim > 0.7")) == 1
        assert list((tmp_path / "served").rglob("network.pt")), "the server keeps the files"
        example = json.loads(next((tmp_path / "served").rglob("input_example.json")).read_text())
        assert np.asarray(example).shape == images[:1].shape
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)
