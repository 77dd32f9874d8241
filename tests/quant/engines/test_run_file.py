"""The script beside an exported network brings pictures to its size as the task's data do, and says what came out."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from grid.paths import RUN_FILE_SCRIPT
from model.data.folders.pictures import read_picture
from model.images import normalize
from quant.engines import catalog
from quant.engines.exported import export

SIZE = 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
pytestmark = pytest.mark.skipif(catalog.missing("onnxruntime") is not None, reason=str(catalog.missing("onnxruntime")))


class Echo(nn.Module):
    """Gives the picture that it gets."""

    def forward(self, images: Tensor) -> Tensor:
        return images * 1.0


@pytest.fixture(scope="module")
def echo(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("echo") / "network.onnx"
    export(Echo(), "onnxruntime", torch.zeros(1, 3, SIZE, SIZE), file)
    return file


@pytest.fixture
def picture(tmp_path) -> Path:
    """71 x 50 pixels of shapes and grain."""
    rows, columns = np.mgrid[:50, :71]
    grain = np.random.default_rng(0).integers(0, 60, (50, 71))
    colours = np.stack([rows * 3 + grain, columns * 2 + grain, (rows + columns) % 40 * 4 + grain], 2)
    Image.fromarray(colours.astype(np.uint8)).save(tmp_path / "view.png")
    return tmp_path / "view.png"


def run(network: Path, given: Path, *options: str, **card: object) -> subprocess.CompletedProcess[str]:
    """Run the script in the folder of the picture, with a card that says so much of input and output."""
    out = given.parent
    shutil.copy(network, out / "network.onnx")
    shutil.copy(RUN_FILE_SCRIPT, out / "run.py")
    shape = {"name": "image", "shape": [1, 3, SIZE, SIZE], "mean": MEAN, "std": STD}
    absent = {"name": "network.none", "engine": {"name": "none", "package": "none_such"}}
    file = {"name": "network.onnx", "engine": {"name": "onnxruntime", "package": "onnxruntime"}}
    whole = {"files": [absent, file], "output": {"name": "seen"}, **card}
    whole["input"] = shape | whole.get("input", {})
    (out / "card.json").write_text(json.dumps(whole))
    command = [sys.executable, str(out / "run.py"), str(given), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize("resize", ["whole", "shorter side", "none"])
def test_a_picture_is_brought_to_size_as_the_data_of_its_task_are(echo, picture, resize):
    done = run(echo, picture, task="own/echo", input={"resize": resize})
    assert done.stdout.strip() == f"seen: [1, 3, {SIZE}, {SIZE}]", done.stderr
    found = np.load(picture.with_suffix(".outputs.npz"))["seen"]
    expected = normalize(read_picture(picture, SIZE, resize).pixels[None]).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_what_restoration_gives_becomes_the_picture_again(echo, picture):
    output = {"mean": MEAN, "std": STD}
    done = run(echo, picture, task="restoration", input={"resize": "none"}, output=output)
    assert done.returncode == 0, done.stderr
    restored = np.asarray(Image.open(picture.with_suffix(".restored.png")))
    assert np.array_equal(restored, read_picture(picture, SIZE, "none").pixels.permute(1, 2, 0).numpy())


def test_the_class_of_each_pixel_becomes_a_picture_with_a_palette_and_shares(echo, picture):
    names = ["red", "green", "blue"]
    done = run(echo, picture, task="segmentation", input={"resize": "whole"}, output={"classes": names})
    mask = Image.open(picture.with_suffix(".classes.png"))
    expected = normalize(read_picture(picture, SIZE).pixels[None]).argmax(1)[0].numpy()
    assert mask.mode == "P"
    assert (np.asarray(mask) == expected).mean() > 0.99
    assert len({tuple(mask.getpalette()[3 * index : 3 * index + 3]) for index in range(3)}) == 3
    shares = {name: float(share.rstrip("%")) / 100 for share, name in map(str.split, done.stdout.splitlines())}
    counts = np.bincount(expected.ravel(), minlength=3) / expected.size
    assert [shares.get(name, 0.0) for name in names] == pytest.approx(counts.tolist(), abs=0.01)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"input": {"resize": "none", "shape": [1, 3, 64, 64]}}, "is smaller than 64 x 64"),
        ({"input": {"shape": [1, 2, SIZE, SIZE]}}, f"takes 2 x {SIZE} x {SIZE} numbers in a .npy file, and no picture"),
    ],
)
def test_a_picture_that_cannot_be_an_input_is_said(echo, picture, given, message):
    done = run(echo, picture, task="own/echo", **given)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_first_engine_that_is_installed_runs_and_one_that_is_named_alone(echo, picture):
    done = run(echo, picture, task="own/echo", input={"resize": "none"})
    assert done.returncode == 0, done.stderr
    named = run(echo, picture, "--engine", "onnxruntime", task="own/echo", input={"resize": "none"})
    assert named.stdout == done.stdout
    unknown = run(echo, picture, "--engine", "tvm", task="own/echo")
    assert unknown.returncode == 2
    assert "choose from none, onnxruntime" in unknown.stderr.replace("'", "")


def test_where_no_engine_is_installed_their_packages_are_named(echo, picture):
    absent = {"name": "network.none", "engine": {"name": "none", "package": "none_such"}}
    done = run(echo, picture, task="own/echo", input={"resize": "none"}, files=[absent])
    assert done.returncode == 1
    assert "none of the packages that run these files is installed: none_such" in done.stderr
