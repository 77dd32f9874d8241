"""The worked example of docs/own.md, run whole: another network, in one file, on pictures of another folder."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import runner
from model.data.pack import Pack
from model.tasks.depth import depth_metrics
from tests.grid.tiny import ROOT, written
from tests.runner.desk import CELLS, SET, quietly, runs_of
from tests.runner.story import EXAMPLE, Story

pytestmark = pytest.mark.timeout(400)


def test_every_cell_holds_the_network_of_the_file(story):
    assert story.resume.status == 0, story.resume.output
    assert [(row["cell"], row["status"], row["encoder"]) for row in story.rows()[: len(CELLS)]] == [
        (cell, "ok", "own/small_depth") for cell in CELLS
    ]
    assert all(float(row["size_mb"]) < 0.3 for row in story.rows()[: len(CELLS)])


def planned(story: Story) -> str:
    status, text = quietly(story.at.arguments(*SET, "--dry-run"))
    assert status == 0
    return text


def test_the_same_file_elsewhere_is_the_same_network_and_a_changed_one_another(story):
    before = written(story.at.storage)
    assert "0 to compute" in planned(story)
    file = story.at.folder / "small_depth.py"
    whole = file.read_text()
    try:
        file.write_text(whole.replace("width=16", "width=8"))
        assert "0 are in the store" in planned(story)
    finally:
        file.write_text(whole)
    assert "0 to compute" in planned(story)
    assert written(story.at.storage) == before


PREDICT = """
import sys
import h5py, mlflow.pyfunc, numpy as np
database, model, pack, out = sys.argv[1:]
mlflow.set_tracking_uri(database)
loaded = mlflow.pyfunc.load_model(model)
with h5py.File(pack) as file:
    depth_m = loaded.predict(file["test"]["image"][:])
np.save(out, depth_m)
import model, quant
print(model.__path__[0], quant.__path__[0])
"""


def test_its_logged_model_gives_the_recorded_ssim_where_neither_the_file_nor_the_repository_is(story, tmp_path):
    row = next(row for row in story.rows() if row["method"] == "ptq+qat")
    run = next(run for run in runs_of(story.uri, "first")["children"] if run.info.run_id == row["mlflow_run_id"])
    (pack,), out = (story.at.storage / "packs").glob("*.h5"), tmp_path / "depth.npy"
    aside = (story.at.folder / EXAMPLE.name).rename(story.at.folder / "aside.py")
    networks = (story.at.storage / "networks").rename(story.at.storage / "away")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", PREDICT, story.uri, run.data.tags["grid.model_uri"], str(pack), str(out)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
    finally:
        aside.rename(story.at.folder / EXAMPLE.name)
        networks.rename(story.at.storage / "networks")
    assert done.returncode == 0, done.stderr
    assert str(ROOT) not in done.stdout, "the model brings its own code"
    depth_m, truth = np.load(out), Pack(pack).targets("test")
    assert depth_m.shape == tuple(truth.shape)
    found = depth_metrics(torch.from_numpy(depth_m) / 10, truth)
    assert found["ssim"] == pytest.approx(float(row["test_ssim"]), abs=1e-6)
    assert found["rmse_m"] == pytest.approx(float(row["test_rmse_m"]), abs=1e-5)


def test_a_network_that_cannot_be_quantized_is_refused_before_any_work(story, capsys):
    bad = story.at.folder / "branching.py"
    bad.write_text(
        "from torch import nn\n"
        "class Branching(nn.Conv2d):\n"
        "    def forward(self, x):\n"
        "        y = super().forward(x)\n"
        "        return y if y.sum() > 0 else -y\n"
        "class Whole(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer = Branching(3, 1, 4, stride=4)\n"
        "    def forward(self, x):\n"
        "        y = self.layer(x)\n"
        "        return y if y.mean() > 0 else -y\n"
        "def build(input_size):\n"
        "    return Whole()\n"
    )
    before = written(story.at.storage)
    assert runner.main(story.at.arguments(*SET, "--network", str(bad))) == 2
    shown = capsys.readouterr().err
    where = f"Whole.layer (Branching), {bad}:5, `return y if y.sum() > 0 else -y`"
    assert shown.startswith(f"{bad}: its network cannot be quantized ({where} cannot be traced.")
    assert written(story.at.storage) == before


def test_the_trained_network_comes_back_as_a_checkpoint_of_its_own(story):
    """What ``python -m model`` writes for the file starts the grid's cells."""
    command = [sys.executable, "-m", "model", "--network", str(EXAMPLE), "--data", str(story.at.folder / "pictures")]
    out = story.at.folder / "trained.safetensors"
    command += ["--out", str(out), "--packs", str(story.at.folder / "packs")]
    done = subprocess.run(
        [*command, "--epochs", "1", "--batch-size", "4"],
        cwd=ROOT, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    size = ("--set", "network.input_size=224", "--set", "data.input_size=224")
    status, text = quietly(story.at.arguments(*SET, "--dry-run", "--checkpoint", str(out), *size))
    assert status == 0
    assert "load(" in text
    assert "train(" not in text


def test_a_stored_network_does_not_load_unless_its_file_is_given(story):
    """A process that was not given the file, on the stage of the trained network."""
    (stage,) = {
        path.parent
        for path in (story.at.storage / "stages").glob("*/result.json")
        if '"stage": "train"' in path.read_text()
    }
    code = f"from quant.artifact import load_network; load_network({str(stage)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "'own/small_depth' is not known, and code runs only from a file that you name" in done.stderr
    assert np.isfinite(float(story.rows()[0]["test_ssim"]))
