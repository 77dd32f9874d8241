"""A task of one's own on data of an odd shape goes the whole way, from its file to the rows of its results."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from grid.tracking.serving import NetworkModel
from model.data.pack import Pack
from model.network.user_network import register_network
from tests.runner.own_task import smoke

pytestmark = pytest.mark.timeout(400)
DIGITS = Path(__file__).with_name("digits.py")
BUDGET = ("train.init=random", "train.epochs=4", "qat.images_per_epoch=64", "latency.seconds=0.2", "latency.loads=3")


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """The folder of a run of the smoke grid on digits of 1 x 8 x 8."""
    return smoke(DIGITS, tmp_path_factory.mktemp("digits"), "digits", BUDGET)


def test_every_cell_is_ok_and_far_better_than_chance(digits):
    with (digits / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["status"] for row in rows} == {"ok"}
    assert len(rows) == 6
    accuracies = {row["cell"]: float(row["test_top1"]) for row in rows}
    assert min(accuracies.values()) > 0.6, "of ten classes"
    assert max(accuracies.values()) - min(accuracies.values()) < 0.1


def test_the_report_speaks_of_the_metric_of_the_task(digits):
    report = (digits / "report.md").read_text()
    assert "top1" in report
    assert "SSIM" not in report
    records = [json.loads(file.read_text()) for file in (digits.parents[1] / "stages").glob("*/result.json")]
    assert {one["settings"]["network.inputs"] for one in records if "network.inputs" in one["settings"]} == {"1x8x8"}


def test_the_model_that_mlflow_keeps_takes_the_inputs_of_the_pack(digits):
    (pack,), stages = (digits.parents[1] / "packs").glob("*.h5"), digits.parents[1] / "stages"
    convert = next(one.parent for one in stages.glob("*/result.json") if '"stage": "convert"' in one.read_text())
    register_network(DIGITS)
    model = NetworkModel()
    model.load_context(SimpleNamespace(artifacts={"network": str(convert)}, model_config=None))
    images = Pack(pack).images("test").numpy()
    found = model.predict(None, images).argmax(1) == Pack(pack).targets("test").numpy()
    assert found.mean() > 0.6
    with pytest.raises(ValueError, match=r"expected uint8 \[N,1,H,W\]"):
        model.predict(None, images.repeat(3, axis=1))
