"""The story of a run: killed, resumed, run again; its files, its runs in MLflow and its models."""

import csv
import json
from pathlib import Path

import pytest

from grid.secrets import masked
from tests.grid.measures import RESULT_COLUMNS
from tests.runner.desk import CELLS, EXCLUDED, SET, no_cluster, quietly, runs_of

pytestmark = pytest.mark.timeout(500)


def test_a_run_says_where_it_is_and_how_to_look_at_it(story):
    for text in (story.first.output, story.resume.output):
        assert f"run        {story.folder}" in text
        assert f"MLflow     {masked(story.uri)}" in text
        assert "dashboard  http://127.0.0.1:" in text
    assert "Traceback" not in story.resume.output
    for cell in CELLS:
        assert f"{cell} " in story.resume.output


def test_a_run_leaves_results_report_plan_and_command(story):
    with (story.folder / "results.csv").open() as file:
        assert tuple(csv.DictReader(file).fieldnames or ())[: len(RESULT_COLUMNS)] == RESULT_COLUMNS
    report = (story.folder / "report.md").read_text()
    assert all(cell in report for cell in (*CELLS, *EXCLUDED))
    assert "17 stages" in (story.folder / "plan.txt").read_text()
    kept = json.loads((story.folder / "run.json").read_text())
    assert kept["run_name"] == "first"
    assert kept["arguments"]["set"] == ["fuse_bn=true", "equalize.objective=noise"]
    assert kept["arguments"]["tracking_uri"] == masked(story.uri) != story.uri


def test_a_run_recommends_a_cell_and_its_report_is_made_again_for_another_target(story):
    assert "maximize ssim: " in story.resume.output
    page = (story.folder / "report.html").read_text()
    assert all(cell in page for cell in CELLS)
    table = (story.folder / "results.csv").read_bytes()
    for name in ("report.md", "report.html", "results.csv"):
        (story.folder / name).unlink()
    arguments = ["--report", "first", "--storage", str(story.at.storage)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grid.scheduling.tune.cluster", no_cluster)
        status, text = quietly([*arguments, "--target", "ssim>=2, minimize size_mb"])
        assert status == 0
        assert "ssim>=2, minimize size_mb: no cell" in text
        assert "No cell keeps ssim>=2" in (story.folder / "report.md").read_text()
        assert quietly(arguments)[0] == 0
    assert (story.folder / "report.html").read_text() == page
    assert (story.folder / "results.csv").read_bytes() == table


def test_a_recommended_model_is_registered_once_under_an_alias(story):
    arguments = story.at.arguments(*SET, run_name="again")
    for _ in range(2):
        status, text = quietly([*arguments, "--register", "depth"])
        assert status == 0
        assert "registered models:/depth@recommended" in text
    from mlflow import MlflowClient

    client = MlflowClient(story.uri)
    (version,) = client.search_model_versions("name = 'depth'")
    assert client.get_model_version_by_alias("depth", "recommended").version == version.version
    assert client.get_run(version.run_id).info.run_name in CELLS
    assert Path(version.source.removeprefix("file://"), "MLmodel").is_file()


def test_mlflow_has_one_finished_run_a_cell_below_one_finished_grid(story):
    runs = runs_of(story.uri, "first")
    assert len(runs["parents"]) == 1
    assert runs["parents"][0].info.status == "FINISHED"
    names = sorted(run.info.run_name for run in runs["children"])
    assert names == sorted((*CELLS, *EXCLUDED))
    assert {run.info.status for run in runs["children"]} == {"FINISHED"}
    assert len({run.data.tags["grid.cell"] for run in runs["children"]}) == len(names)
    status = {run.info.run_name: run.data.tags["grid.status"] for run in runs["children"]}
    assert status == dict.fromkeys(CELLS, "ok") | dict.fromkeys(EXCLUDED, "excluded")


def test_mlflow_has_the_same_figures_and_settings_as_results_csv(story):
    children = {run.info.run_name: run for run in runs_of(story.uri, "first")["children"]}
    for row in story.rows():
        run = children[row["cell"]]
        assert row["mlflow_run_id"] == run.info.run_id
        for column in ("test_ssim", "test_mse", "sqnr_db", "size_mb", "profiler_step_ms"):
            assert run.data.metrics.get(column) == (float(row[column]) if row[column] else None), column
        own = row["latency_own_ratio_low"]  # MLflow has the cell's own, and the row that of its timing class
        assert run.data.metrics.get("latency_ratio_low") == (float(own) if own else None)
        assert run.data.params["method"] == row["method"]
        assert run.data.params["fuse_bn"] == row["fuse_bn"]
        assert set(run.data.params) <= {"method", "fuse_bn", "granularity", "engine", "seed", "network.encoder"}
        if row["method"] == "ptq+qat" and row["status"] == "ok":
            assert "val_ssim" in run.data.metrics
    (parent,) = runs_of(story.uri, "first")["parents"]
    assert parent.data.params["qat.epochs"] == "1", "what all cells have in common stands with the grid"


def test_every_int8_cell_and_no_other_has_a_logged_model(story):
    children = {run.info.run_name: run for run in runs_of(story.uri, "first")["children"]}
    with_model = {name for name, run in children.items() if "grid.model_uri" in run.data.tags}
    assert with_model == {row["cell"] for row in story.rows() if row["graph_hash"]}
    assert len(with_model) == 2


def test_the_same_grid_again_computes_no_stage_and_starts_no_ray(story):
    assert story.again_status == 0
    assert story.repeated == story.resumed
    assert "0 to compute" in (story.at.run("again") / "plan.txt").read_text()
    assert "dashboard" not in story.again_output
    assert story.again_seconds < 120
    figures = [column for column in RESULT_COLUMNS if column != "mlflow_run_id"]
    for one, other in zip(story.rows(), story.rows("again"), strict=True):
        assert [one[column] for column in figures] == [other[column] for column in figures]
