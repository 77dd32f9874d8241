"""Runs that do not get to their end at once: killed, interrupted, damaged, or with a cell that fails."""

import contextlib
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

import runner
from grid.scheduling.outcome import RunOutcome
from grid.scheduling.tune import Dashboard
from grid.secrets import masked
from tests.runner.desk import CELLS, EXCLUDED, SET, quietly, run_plan_here, runs_of
from tests.runner.story import KILLED_AFTER

pytestmark = pytest.mark.timeout(500)


def test_ctrl_c_before_the_grid_runs_ends_without_a_traceback(at, monkeypatch):
    def interrupt(*_: Any) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr("grid.run.job.prepare_data", interrupt)
    assert runner.main(at.arguments()) == 130


def test_a_killed_run_is_finished_by_resume(story):
    assert story.resume.status == 0, story.resume.output
    assert [(row["cell"], row["status"]) for row in story.rows()] == [
        *((cell, "ok") for cell in CELLS),
        *((cell, "excluded") for cell in EXCLUDED),
    ]


def test_resume_computes_no_finished_stage_again(story):
    assert KILLED_AFTER <= len(story.killed) < len(story.resumed), "the run was killed in its middle"
    assert {node: story.resumed[node] for node in story.killed} == story.killed


def test_a_run_is_resumed_from_any_folder(story, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert runner.main(story.resuming("--dry-run")) == 0
    assert "17 are in the store, 0 to compute" in capsys.readouterr().out


def test_a_finished_run_resumed_again_changes_nothing_in_mlflow(story):
    before = runs_of(story.uri, "first")
    assert quietly(story.resuming())[0] == 0
    after = runs_of(story.uri, "first")
    ends = [{run.info.run_id: run.info.end_time for run in runs["children"]} for runs in (before, after)]
    assert ends[0] == ends[1]
    assert len(after["parents"]) == 1
    assert after["parents"][0].info.status == "FINISHED"


def test_a_damaged_result_is_computed_again_by_the_next_run(story, tmp_path):
    storage = tmp_path / "storage"
    for name in ("packs", "stages"):
        shutil.copytree(story.at.storage / name, storage / name)
    damaged = next(
        path.parent
        for path in (storage / "stages").glob("*/result.json")
        if json.loads(path.read_text())["stage"] == "fuse"
    )
    network = damaged / "network.safetensors"
    network.write_bytes(network.read_bytes()[:-4] + b"oops")
    _, text = quietly(story.at.arguments(*SET, "--dry-run", storage=str(storage)))
    assert "16 are in the store, 1 to compute" in text


def test_a_failed_cell_is_a_row_with_its_reason_and_exit_status_1(story, monkeypatch):
    monkeypatch.setattr(
        "grid.scheduling.tune.cluster", lambda resources, devices: contextlib.nullcontext(Dashboard("", None))
    )
    monkeypatch.setattr("grid.scheduling.tune.run_plan", run_plan_here)
    monkeypatch.setattr("grid.stages.quantize.finetune", breaks)
    status, text = quietly(story.at.arguments(*SET, "--set", "qat.epochs=2", run_name="failing"))
    assert status == 1
    rows = {row["cell"]: row for row in story.rows("failing")}
    assert {cell: rows[cell]["status"] for cell in CELLS} == dict.fromkeys(CELLS[:3], "ok") | {CELLS[3]: "failed"}
    reason = rows[CELLS[3]]["reason"]
    assert reason.startswith("finetune: RuntimeError: ")
    assert reason in (story.at.run("failing") / "report.md").read_text()
    assert f"FAILED {CELLS[3]}: {reason}" in text
    runs = runs_of(story.uri, "failing")
    assert runs["parents"][0].info.status == "FAILED"
    child = next(run for run in runs["children"] if run.info.run_name == CELLS[3])
    assert (child.info.status, child.data.tags["grid.reason"]) == ("FAILED", reason)


def breaks(*_: Any, **__: Any) -> None:
    raise RuntimeError("it broke")


@pytest.mark.parametrize("loud", [False, True])
def test_an_interrupted_run_says_how_to_go_on_and_is_not_called_finished(story, monkeypatch, loud):
    def interrupt(*_: Any) -> RunOutcome:
        if loud:
            raise KeyboardInterrupt
        return RunOutcome({})  # Tune takes the first Ctrl-C as the end of its work

    monkeypatch.setattr(
        "grid.scheduling.tune.cluster", lambda resources, devices: contextlib.nullcontext(Dashboard("", None))
    )
    monkeypatch.setattr("grid.scheduling.tune.run_plan", interrupt)
    status, text = quietly(story.at.arguments(*SET, "--set", "qat.epochs=7", run_name="cut"))
    assert status == 130
    again = (
        f"python runner.py --resume cut --storage {story.at.storage} --tracking-uri {shlex.quote(masked(story.uri))}"
    )
    assert again in " ".join(text.split())
    rows = {row["cell"]: row for row in story.rows("cut")}
    assert (rows[CELLS[3]]["status"], rows[CELLS[2]]["status"]) == ("skipped", "ok")
    runs = runs_of(story.uri, "cut")
    assert runs["parents"][0].info.status == "KILLED"
    assert CELLS[3] not in {run.info.run_name for run in runs["children"]}
