"""The worked example of docs/own.md, run whole: another network, in one file, on pictures of another folder."""

import contextlib
import io
import os
import subprocess
import sys

import numpy as np
import pytest

import runner
from tests.grid.tiny import ROOT, written
from tests.worked_example import EXAMPLE, Example, example

CELLS = ["fp32", "fp32-fuse_bn", "per_channel-ptq", "per_channel-ptq+qat"]


@pytest.fixture(scope="module")
def tried(tmp_path_factory) -> Example:
    return example(tmp_path_factory)


pytestmark = pytest.mark.timeout(400)


@pytest.mark.slow
def test_every_cell_holds_the_network_of_the_file(tried):
    assert tried.seen.status == 0, tried.seen.output
    assert [(row["cell"], row["status"], row["encoder"]) for row in tried.rows()] == [
        (cell, "ok", "own/small_depth") for cell in CELLS
    ]
    assert all(float(row["size_mb"]) < 0.3 for row in tried.rows())


def planned(tried: Example) -> str:
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        assert runner.main(tried.arguments("--dry-run")) == 0
    return text.getvalue()


def test_the_same_file_elsewhere_is_the_same_network_and_a_changed_one_another(tried):
    before = written(tried.folder / "results")
    assert "0 to compute" in planned(tried)
    file = tried.folder / "small_depth.py"
    whole = file.read_text()
    try:
        file.write_text(whole.replace("width=16", "width=8"))
        assert "0 are in the store" in planned(tried)
    finally:
        file.write_text(whole)
    assert "0 to compute" in planned(tried)
    assert written(tried.folder / "results") == before


PREDICT = """
import sys
import mlflow, numpy as np
mlflow.set_tracking_uri(sys.argv[1])
named = "run_name = 'per_channel-ptq'"
(run,) = mlflow.search_runs(search_all_experiments=True, filter_string=named, output_format="list")
loaded = mlflow.pyfunc.load_model(run.data.tags["grid.model_uri"])
depth_m = loaded.predict(np.full((2, 3, 64, 64), 128, np.uint8))
print(depth_m.shape, np.isfinite(depth_m).all())
"""


@pytest.mark.slow
def test_its_logged_model_loads_where_neither_the_file_nor_the_repository_is(tried, tmp_path):
    aside = tried.folder / "aside.py"
    (tried.folder / "small_depth.py").rename(aside)
    networks = (tried.folder / "results" / "networks").rename(tried.folder / "results" / "away")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", PREDICT, tried.uri],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
    finally:
        aside.rename(tried.folder / "small_depth.py")
        networks.rename(tried.folder / "results" / "networks")
    assert done.stdout.strip() == "(2, 1, 16, 16) True", done.stderr


def test_a_network_that_cannot_be_quantized_is_refused_before_any_work(tried, capsys):
    bad = tried.folder / "branching.py"
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
    before = written(tried.folder / "results")
    assert runner.main(tried.arguments("--network", str(bad))) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"{bad}: its network cannot be quantized (Whole cannot be traced by torch.fx")
    assert written(tried.folder / "results") == before


def test_the_trained_network_comes_back_as_a_checkpoint_of_its_own(tried):
    """What ``python -m model`` writes for the file starts the grid's cells."""
    command = [sys.executable, "-m", "model", "--network", str(EXAMPLE), "--data", str(tried.folder / "pictures")]
    out = tried.folder / "trained.safetensors"
    command += ["--out", str(out), "--packs", str(tried.folder / "packs")]
    done = subprocess.run(
        [*command, "--epochs", "1", "--batch-size", "4"],
        cwd=ROOT, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        assert runner.main(tried.arguments("--dry-run", "--checkpoint", str(out), "--set", "network.input_size=224",
                                           "--set", "data.input_size=224")) == 0  # fmt: skip
    assert "load(" in text.getvalue()
    assert "train(" not in text.getvalue()


def test_a_stored_network_does_not_load_unless_its_file_is_given(tried):
    """A process that was not given the file, on the stage of the trained network."""
    (stage,) = {
        path.parent
        for path in (tried.folder / "results" / "stages").glob("*/result.json")
        if '"stage": "train"' in path.read_text()
    }
    code = f"from quant.artifact import load_network; load_network({str(stage)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "'own/small_depth' is not known, and code runs only from a file that you name" in done.stderr
    assert np.isfinite(float(tried.rows()[0]["test_ssim"]))
