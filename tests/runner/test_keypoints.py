"""The example of docs/tasks.md, a task with two outputs, from its file to a recommendation and a file of ONNX."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import runner
from quant.engines.catalog import missing
from tests.grid.tiny import ROOT
from tests.runner.desk import quietly
from tests.runner.own_task import smoke

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
EXAMPLE = ROOT / "docs" / "examples" / "keypoints.py"
BUDGET = (
    *("train.init=random", "train.epochs=2", "train.batch_size=8", "qat.images_per_epoch=16", "network.input_size=64"),
    *("latency.seconds=0.2", "latency.loads=3"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return smoke(EXAMPLE, tmp_path_factory.mktemp("keypoints"), "points", BUDGET)


def test_the_example_is_as_short_as_the_docs_say():
    assert len(EXAMPLE.read_text().splitlines()) <= 60


def test_every_cell_is_ok_and_each_output_has_its_noise(run):
    with (run / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["status"] for row in rows} == {"ok"}
    int8 = [row for row in rows if row["graph_hash"]]
    assert len(int8) == 4
    for row in int8:
        assert all(float(row[f"sqnr_db.{name}"]) > 20 for name in ("heat", "here")), row["cell"]


def test_the_report_recommends_a_cell_in_the_metric_of_the_task(run):
    report = (run / "report.md").read_text()
    assert "Take `fuse_bn-per_" in report.replace("**", "")
    assert "peaks near" in report
    assert "SSIM" not in report


@pytest.mark.skipif(missing("onnxruntime") is not None, reason="make engines")
def test_a_cell_is_exported_with_both_outputs_by_name(run, tmp_path, capsys):
    import onnxruntime

    storage = str(run.parents[1])
    arguments = ["--export", "points/fuse_bn-per_channel-ptq", "--engine", "onnxruntime", "--out", str(tmp_path)]
    assert runner.main([*arguments, "--storage", storage]) == 2, "a file runs only where it is named"
    assert "--task" in capsys.readouterr().err
    status, text = quietly([*arguments, "--storage", storage, "--task", str(EXAMPLE)])
    assert status == 0, text
    card = json.loads((tmp_path / "card.json").read_text())
    session = onnxruntime.InferenceSession(tmp_path / card["files"][0]["name"], providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["heat", "here"]
    heat, here = session.run(None, {"image": np.zeros((1, 3, 64, 64), np.float32)})
    assert (heat.shape, here.shape) == ((1, 3, 16, 16), (1, 3))
    assert "near" in card["files"][0]["metrics"]
