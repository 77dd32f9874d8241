"""An MLflow server that goes away, or hangs, while a grid runs: all results are kept, and delivered with --sync."""

import contextlib
import csv
import io
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

import runner
from grid.planning.plan import Plan
from grid.scheduling.listener import Listener
from grid.scheduling.outcome import RunOutcome
from grid.scheduling.tune import Dashboard, Resources
from grid.stages.work import Context
from tests.faults.mlflow_server import Server
from tests.grid.tiny import space_file, world
from tests.runner.desk import run_plan_here

pytestmark = pytest.mark.timeout(400)
AXES = "{method: [ptq], fuse_bn: [true], granularity: [per_channel, per_tensor]}"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("mlflow") / "server")
    made.start()
    yield made
    made.kill()


@pytest.fixture
def desk(tmp_path, tmp_path_factory, monkeypatch) -> list[str]:
    """The arguments of a tiny grid, of which this process is the only worker."""
    here = world(tmp_path_factory)
    space_file(tmp_path / "tiny.yaml", AXES)
    shutil.copytree(here.pack.parent, tmp_path / "storage" / "packs")
    monkeypatch.setattr(
        "grid.scheduling.tune.cluster", lambda resources, devices: contextlib.nullcontext(Dashboard("", None))
    )
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    settings = ["--set", "equalize=false", "--set", "rounding=false", "--storage", str(tmp_path / "storage")]
    return ["--grid", str(tmp_path / "tiny.yaml"), "--checkpoint", str(here.checkpoint), *settings]


def said(arguments: list[str]) -> tuple[int, str]:
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        status = runner.main(arguments)
    return status, " ".join(text.getvalue().split())


@pytest.mark.parametrize(
    "how", [pytest.param(signal.SIGKILL, marks=pytest.mark.slow), pytest.param(signal.SIGSTOP, marks=pytest.mark.long)]
)
def test_results_are_kept_while_the_server_is_away_and_delivered_when_it_is_back(
    how, server, desk, tmp_path, monkeypatch
):
    name = how.name
    stages: list[float] = []

    def run_plan_without(plan: Plan, context: Context, resources: Resources, listener: Listener) -> RunOutcome:
        server.kill(how)
        began = time.monotonic()
        outcome = run_plan_here(plan, context, resources, listener)
        stages.append(time.monotonic() - began)
        return outcome

    monkeypatch.setattr("grid.scheduling.tune.run_plan", run_plan_without)
    monkeypatch.setattr("grid.run.recorder._LONG_S", 1.0)
    status, text = said([*desk, "--run-name", name, "--tracking-uri", server.uri])
    again = f"python runner.py --sync {name} --storage {tmp_path}/storage --tracking-uri {server.uri}"
    assert status == 1
    assert text.count("MLflow cannot be written to") == 1, "told once"
    assert how == signal.SIGKILL or "MLflow is still being written to ..." in text, "a long wait says what it is for"
    assert again in text
    rows = rows_of(tmp_path / "storage" / "runs" / name)
    assert {row["status"] for row in rows} == {"ok"}
    assert (tmp_path / "storage" / "runs" / name / "report.html").is_file()

    status, text = said(again.split()[2:])
    assert (status, "no server answers" in text) == (2, True), "still away: told, and nothing is lost"
    server.start() if how == signal.SIGKILL else server.kill(signal.SIGCONT)
    assert delivered(server, name) < len(rows)
    status, text = said(again.split()[2:])
    assert status == 0, text
    assert delivered(server, name) == len(rows)
    assert rows_of(tmp_path / "storage" / "runs" / name) == [
        {**row, "mlflow_run_id": run_id} for row, run_id in zip(rows, run_ids(server, name, rows), strict=True)
    ]
    before = run_ids(server, name, rows)
    assert said(["--sync", name, "--storage", f"{tmp_path}/storage"])[0] == 0, "a run knows its store"
    assert run_ids(server, name, rows) == before, "a second delivery changes nothing"


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def children(server: Server, name: str) -> dict[str, Any]:
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("quantization-grid")
    (parent,) = client.search_runs([experiment.experiment_id], f"tags.`grid.run` = '{name}'")
    found = client.search_runs([experiment.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    return {run.info.run_name: run for run in found}


def delivered(server: Server, name: str) -> int:
    return sum(run.info.status == "FINISHED" for run in children(server, name).values())


def run_ids(server: Server, name: str, rows: list[dict[str, str]]) -> list[str]:
    found = children(server, name)
    return [found[row["cell"]].info.run_id for row in rows]
