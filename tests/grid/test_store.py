"""The rules of tracking: one child run a cell whatever happens, models that load anywhere, no secrets shown."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch

from grid import store
from grid.store import CELL_TAG, MODEL_TAG, ModelArtifact, Tracking
from grid.tracking_uri import checked_uri, masked, ui_command
from model.errors import InputError
from model.network import NetworkSpec, build_network, normalize
from quant.artifact import Form, load_network, save_network
from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.recipe import CalibrateSpec

ROOT = Path(store.__file__).parents[1]
SIZE = 64


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> str:
    """One SQLite for all tests: making its tables takes seconds."""
    folder = tmp_path_factory.mktemp("mlflow")
    before = set(Path.cwd().iterdir())
    uri = f"sqlite:///{folder}/mlflow.db"
    Tracking(uri, "first", folder / "files")
    assert set(Path.cwd().iterdir()) == before, "nothing is written to the working directory"
    return uri


@pytest.fixture
def tracking(database, tmp_path, request) -> Tracking:
    """An experiment of its own for each test."""
    return Tracking(database, request.node.name, tmp_path / "files")


@pytest.fixture(scope="module")
def int8(tmp_path_factory) -> tuple[Path, np.ndarray, np.ndarray]:
    """The folder of a tiny real int8 network, two images uint8, and its depth of them in metres."""
    folder = tmp_path_factory.mktemp("network")
    torch.manual_seed(0)
    spec = NetworkSpec(input_size=SIZE)
    images = torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8)
    network = build_network(spec).eval()
    prepared = calibrate(network, "per_channel", CalibrateSpec(images=2, activation_range="minmax"), normalize(images))
    network_int8 = qnnpack.convert(prepared)
    save_network(folder, network_int8, Form(spec, False, "int8", "per_channel", "qnnpack"))
    with torch.inference_mode():
        depth = load_network(folder)(normalize(images)) * 10
    return folder, images.numpy(), depth.numpy()


def write(tracking: Tracking, parent: str, key: str = "k1", **given) -> str:
    cell = {
        "cell_name": "per_channel-ptq",
        "params": {"method": "ptq", "fuse_bn": False, "equalize": None, "qat.learning_rate": 1e-4},
        "metrics": {"test_ssim": 0.8, "sqnr_db": None},
        "history": [{"epoch": 1, "val_ssim": 0.7}, {"epoch": 2, "val_ssim": 0.75, "loss": None}],
        "tags": {"granularity": "per_channel"},
    }
    return tracking.write_cell(parent, key, **{**cell, **given})


def children(tracking: Tracking, parent: str) -> list:
    return tracking.client.search_runs([tracking.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'")


def test_a_cell_becomes_a_finished_child_run_with_its_settings_and_figures(tracking, tmp_path):
    table = tmp_path / "operators.txt"
    table.write_text("ProfilerStep*")
    parent = tracking.parent("full-1", {"grid": "full"}, {"grid.command": "python runner.py"})
    run = tracking.client.get_run(write(tracking, parent, artifacts=[table]))
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "per_channel-ptq"
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.data.tags["granularity"] == "per_channel"
    expected = {"method": "ptq", "fuse_bn": "false", "equalize": "null", "qat.learning_rate": "0.0001"}
    assert run.data.params == expected
    assert run.data.metrics == {"test_ssim": 0.8, "val_ssim": 0.75}, "None is no figure"
    steps = tracking.client.get_metric_history(run.info.run_id, "val_ssim")
    assert [(point.step, point.value) for point in steps] == [(1, 0.7), (2, 0.75)]
    assert [file.path for file in tracking.client.list_artifacts(run.info.run_id)] == ["operators.txt"]
    assert tracking.client.get_run(parent).info.status == "RUNNING"
    assert mlflow.active_run() is None


def test_writing_a_cell_again_changes_nothing_and_makes_no_second_run(tracking, database, tmp_path, request):
    parent = tracking.parent("full-1", {}, {})
    first = write(tracking, parent)
    before = tracking.client.get_run(first).to_dictionary()
    again = Tracking(database, request.node.name, tmp_path / "files")
    assert again.parent("full-1", {}, {}) == parent
    assert write(again, parent) == first
    assert tracking.client.get_run(first).to_dictionary() == before
    assert len(children(tracking, parent)) == 1


def test_a_cell_that_a_kill_left_half_written_is_completed(tracking, database, tmp_path, request, monkeypatch):
    parent = tracking.parent("full-1", {}, {})

    def killed(*arguments) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tracking.client, "set_terminated", killed)
    with pytest.raises(KeyboardInterrupt):
        write(tracking, parent)
    (half,) = children(tracking, parent)
    assert half.info.status == "RUNNING"
    again = Tracking(database, request.node.name, tmp_path / "files")
    assert write(again, parent) == half.info.run_id
    assert again.client.get_run(half.info.run_id).info.status == "FINISHED"
    assert len(children(again, parent)) == 1
    assert len(again.client.get_metric_history(half.info.run_id, "val_ssim")) == 2, "no point twice"


def test_new_figures_of_a_finished_cell_replace_the_old_ones_in_the_same_run(tracking):
    parent = tracking.parent("full-1", {}, {})
    first = write(tracking, parent, status="failed", reason="worker died", metrics={"test_ssim": 0.9})
    run = tracking.client.get_run(first)
    assert run.info.status == "FAILED"
    assert run.data.tags["mlflow.note.content"] == "failed: worker died"
    assert write(tracking, parent, metrics={"test_ssim": 0.8}) == first
    run = tracking.client.get_run(first)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test_ssim"] == 0.8
    assert run.data.tags["grid.status"] == "ok"


@pytest.mark.parametrize(
    ("status", "shown"), [("ok", "FINISHED"), ("excluded", "FINISHED"), ("failed", "FAILED"), ("skipped", "KILLED")]
)
def test_every_status_ends_its_run_and_keeps_the_reason(tracking, status, shown):
    parent = tracking.parent("full-1", {}, {})
    run = tracking.client.get_run(write(tracking, parent, metrics={}, status=status, reason="because"))
    assert run.info.status == shown
    assert (run.data.tags["grid.status"], run.data.tags["grid.reason"]) == (status, "because")


def test_more_params_and_metrics_than_a_batch_holds_arrive_whole(tracking):
    parent = tracking.parent("full-1", {}, {})
    params = {f"p{number}": number for number in range(230)}
    metrics = {f"m{number}": number / 2 for number in range(230)}
    run = tracking.client.get_run(write(tracking, parent, params=params, metrics=metrics, history=[]))
    assert run.data.params == {name: str(value) for name, value in params.items()}
    assert run.data.metrics == metrics


def test_the_grid_is_found_again_by_name_and_a_changed_setting_is_noted(tracking):
    first = tracking.parent("it's one", {"cpus_per_trial": 1}, {})
    second = tracking.parent("it's one", {"cpus_per_trial": 2}, {})
    other = tracking.parent("another", {}, {})
    assert first == second != other
    run = tracking.client.get_run(first)
    assert run.data.params["cpus_per_trial"] == "1", "MLflow never changes a param"
    assert run.data.tags["now.cpus_per_trial"] == "2"


def test_closing_ends_the_grid_and_whatever_a_kill_left_open(tracking, tmp_path):
    report = tmp_path / "report.md"
    report.write_text("# Grid")
    parent = tracking.parent("full-1", {}, {})
    write(tracking, parent)
    tags = {"mlflow.parentRunId": parent, CELL_TAG: "orphan"}
    orphan = tracking.client.create_run(tracking.experiment_id, tags=tags).info.run_id
    tracking._children.clear()
    tracking.close(parent, [report], {"cells_ok": 1.0, "none": None})
    run = tracking.client.get_run(parent)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"cells_ok": 1.0})
    assert [file.path for file in tracking.client.list_artifacts(parent)] == ["report.md"]
    assert tracking.client.get_run(orphan).info.status == "KILLED"
    assert [run.info.status for run in children(tracking, parent)].count("FINISHED") == 1
    tracking.parent("full-1", {}, {})
    assert tracking.client.get_run(parent).info.status == "RUNNING", "a resumed grid is open again"


def test_artifacts_lie_under_the_storage_whatever_the_working_directory(tracking, tmp_path):
    location = tracking.client.get_experiment(tracking.experiment_id).artifact_location
    assert location == (tmp_path / "files").as_uri()


def test_a_deleted_experiment_is_an_error_that_says_how_to_restore_it(tracking, database, tmp_path, request):
    tracking.client.delete_experiment(tracking.experiment_id)
    with pytest.raises(InputError, match=f"deleted.*restore -x {tracking.experiment_id}"):
        Tracking(database, request.node.name, tmp_path / "files")


@pytest.mark.parametrize("uri", ["mlruns", "/tmp/mlruns", "file:///tmp/mlruns"])
def test_a_folder_as_tracking_uri_is_refused_with_what_to_use(uri):
    with pytest.raises(InputError, match=r"sqlite:////absolute"):
        checked_uri(uri)


def test_a_server_that_does_not_answer_is_told_at_once_and_without_its_password():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    start = time.monotonic()
    with pytest.raises(InputError, match=f"127.0.0.1:{port}.*no server answers") as caught:
        checked_uri(f"http://me:secret@127.0.0.1:{port}")
    assert time.monotonic() - start < 6
    assert "secret" not in str(caught.value)


def test_a_store_without_its_driver_is_an_error_without_the_password(tmp_path):
    with pytest.raises(InputError, match="usable MLflow store") as caught:
        Tracking("nosuchdatabase://me:secret@localhost/x", "e", tmp_path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://me:pw@host:5000/path", "http://***@host:5000/path"),
        ("postgresql://me:p@w@host/db?sslkey=abc&x=1", "postgresql://***@host/db?sslkey=***&x=***"),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
    ],
)
def test_secrets_in_uris_are_never_shown(uri, shown):
    assert masked(uri) == shown
    assert "pw" not in ui_command(uri)


def test_logged_requirements_are_pinned_to_what_is_installed():
    pins = dict(line.split("==") for line in store.model_requirements())
    assert pins["torch"] == torch.__version__.partition("+")[0]
    assert {"torchvision", "timm", "numpy", "safetensors", "mlflow"} <= set(pins)


def test_a_model_is_logged_once_and_carries_the_figures_of_its_cell(tracking, int8):
    folder, images, _ = int8
    parent = tracking.parent("full-1", {}, {})
    model = ModelArtifact(folder, images[:1], "hash-1")
    run_id = write(tracking, parent, model=model, history=[])
    uri = tracking.client.get_run(run_id).data.tags[MODEL_TAG]
    found = tracking.client.search_logged_models([tracking.experiment_id], "metrics.test_ssim > 0.7")
    assert [(f"models:/{logged.model_id}", logged.source_run_id) for logged in found] == [(uri, run_id)]
    assert found[0].params["method"] == "ptq"
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
    assert sum(path.stat().st_size for path in files) < network + 600_000
    assert not [path for path in files if path.suffix == ".pyc"]


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
    shutil.copy(ROOT / "grid" / "serving.py", checkout)
    monkeypatch.setattr(store, "CODE_PATHS", (checkout / "model", checkout / "quant"))
    monkeypatch.setattr(store, "SERVING_FILE", checkout / "serving.py")
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
def test_drivers_that_start_at_once_on_a_fresh_database_do_not_crash_each_other(tmp_path):
    code = "import sys; from pathlib import Path; from grid.store import Tracking; "
    code += "print(Tracking(sys.argv[1], 'grid', Path(sys.argv[2])).experiment_id)"
    command = [sys.executable, "-c", code, f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path / "files")]
    drivers = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    told = [driver.communicate(timeout=300)[0].strip() for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0, 0]
    assert len(set(told)) == 1, "one experiment for all"


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
        assert np.asarray(example).shape == (1, 3, SIZE, SIZE)
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)
