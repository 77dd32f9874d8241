"""The rules of tracking: one child run a cell whatever happens, nothing twice, no secrets shown."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest

from grid.secrets import masked
from grid.tracking.mlflow_store import CELL_TAG, Tracking
from grid.tracking.uri import checked_uri, store_uri, ui_command
from model.errors import InputError
from tests.grid.tracking.tracking_cells import children, write

ROOT = Path(__file__).resolve().parents[3]


def test_a_cell_becomes_a_finished_child_run_with_its_settings_and_figures(tracking, tmp_path):
    table = tmp_path / "operators.txt"
    table.write_text("ProfilerStep*")
    parent = tracking.parent("full-1", {"grid": "full"}, {"grid.command": "python runner.py"})
    run = tracking.client.get_run(write(tracking, parent, artifacts=[table]))
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "per_channel-ptq"
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.data.tags["granularity"] == "per_channel"
    expected = {"method": "ptq", "fuse_bn": "false", "equalize": "null", "qat.travel": "0.0001"}
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
    time.sleep(0.01)  # so that a point with a time of its own would be another point
    assert write(again, parent) == half.info.run_id
    assert again.client.get_run(half.info.run_id).info.status == "FINISHED"
    assert len(children(again, parent)) == 1
    points = [len(again.client.get_metric_history(half.info.run_id, name)) for name in ("test_ssim", "val_ssim")]
    assert points == [1, 2], "no point twice"


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
    assert "pw" not in ui_command(uri, Path("results"))


def test_the_pages_of_a_storage_are_opened_by_the_runner(tmp_path):
    assert ui_command(store_uri(tmp_path), tmp_path) == f"python runner.py --ui --storage {tmp_path}"
    assert ui_command(store_uri(Path("results")), Path("results").absolute()) == "python runner.py --ui"


@pytest.mark.slow
def test_drivers_that_start_at_once_on_a_fresh_database_do_not_crash_each_other(tmp_path):
    code = "import sys; from pathlib import Path; from grid.tracking.mlflow_store import Tracking; "
    code += "print(Tracking(sys.argv[1], 'grid', Path(sys.argv[2])).experiment_id)"
    command = [sys.executable, "-c", code, f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path / "files")]
    drivers = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [driver.communicate(timeout=300)[0].strip() for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0]
    assert len(set(told)) == 1, "one experiment for all"
