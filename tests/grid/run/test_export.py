"""A cell's network as a file for a phone: file, card and script, and what is refused."""

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import runner
from grid.run.files import RunFiles
from grid.run.recorder import run_context
from model.data.pack import Pack
from quant.engines import catalog
from tests.grid.tiny import Computed

ENGINES = [
    pytest.param(
        engine, marks=pytest.mark.skipif(catalog.missing(engine) is not None, reason=str(catalog.missing(engine)))
    )
    for engine in catalog.PACKAGES
]
CELL = "fuse_bn-per_channel-ptq+qat-equalize=on"


@dataclass(frozen=True)
class Shelf:
    """A storage with a finished run in it."""

    done: Computed
    storage: Path

    def export(self, *arguments: str) -> int:
        return runner.main(["--storage", str(self.storage), *arguments])


@pytest.fixture(scope="module")
def shelf(computed_grid) -> Shelf:
    done = computed_grid
    storage = done.context.storage
    pack = Pack(done.context.pack)
    (storage / "packs").mkdir(exist_ok=True)
    link = storage / "packs" / done.context.pack.name
    if not link.exists():
        link.symlink_to(done.context.pack)
    context = run_context(done.plan, pack, "shelf", "")
    RunFiles(storage / "runs" / "shelf", done.plan, context).save()
    return Shelf(done, storage)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_the_file_its_card_and_its_script_work_alone(shelf, tmp_path, engine):
    out = tmp_path / "phone"
    assert shelf.export("--export", f"shelf/{CELL}", "--engine", engine, "--out", str(out)) == 0
    card = json.loads((out / "card.json").read_text())
    file = out / card["file"]["name"]
    assert card["file"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert card["file"]["bytes"] == file.stat().st_size
    assert card["scheme"]["weights"] == "int8 symmetric, per_channel"
    assert card["input"]["shape"] == ([1, 64, 64, 3] if engine == "litert" else [1, 3, 64, 64])
    assert card["input"]["levels"]["scale"] > 0
    recorded = shelf.done.records[CELL]["evaluate"]["metrics"]
    assert card["metrics"]["ssim"] == pytest.approx(recorded["ssim"], abs=0.02)
    assert card["recipe"]["method"] == "ptq+qat"
    picture = Pack(shelf.done.context.pack).images("test", [0])[0].permute(1, 2, 0).numpy()
    Image.fromarray(picture).save(tmp_path / "room.png")
    run = subprocess.run(
        [sys.executable, str(out / "run.py"), str(tmp_path / "room.png")],
        cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip().endswith(" m")
    depth_m = np.load(tmp_path / "room.depth.npy")
    expected = np.load(shelf.done.context.storage / "stages" / evaluated(shelf) / "predictions.npy")[0, 0] * 10
    assert depth_m.shape == expected.shape
    assert np.abs(depth_m - expected).mean() < 0.25 * expected.std(), "weights are random: rounding is loud"


def evaluated(shelf: Shelf) -> str:
    return shelf.done.cell(CELL).nodes["evaluate"]


@pytest.mark.parametrize(
    ("what", "engine", "message"),
    [
        ("shelf/nothing", "onnxruntime", "--export: shelf has no cell 'nothing'; expected fp32, "),
        ("nowhere/fp32", "onnxruntime", "--export: 'nowhere' is not a run in "),
        ("../shelf/fp32", "onnxruntime", "--run-name: '..' cannot be a folder"),
        (
            "shelf/fp32",
            "qnnpack",
            "--engine: 'qnnpack' has no file of its own; expected one of xnnpack, onnxruntime, litert.",
        ),
    ],
)
def test_what_cannot_be_exported_is_said(shelf, monkeypatch, capsys, tmp_path, what, engine, message):
    monkeypatch.setattr("grid.run.export.missing", lambda engine: None)
    assert shelf.export("--export", what, "--engine", engine, "--out", str(tmp_path / "out")) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_engine_that_is_not_installed_names_the_command(shelf, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert shelf.export("--export", f"shelf/{CELL}", "--out", str(tmp_path / "out")) == 2
    assert "pip install -r requirements-engines.txt" in capsys.readouterr().err
