"""A cell's network as a file for a phone: file, card and script, and what is refused."""

import csv
import hashlib
import itertools
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

INSTALLED = [engine for engine in catalog.PACKAGES if catalog.missing(engine) is None]
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
    (told,) = card["files"]
    file = out / told["name"]
    assert told["engine"]["name"] == engine
    assert told["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert told["bytes"] == file.stat().st_size
    assert card["scheme"]["weights"] == "int8 symmetric, per_channel"
    assert card["input"]["shape"] == [1, 3, 64, 64]
    assert told["layout"] == ("NHWC" if engine == "litert" else "NCHW")
    assert card["input"]["levels"]["scale"] > 0
    recorded = shelf.done.records[CELL]["evaluate"]["metrics"]
    assert told["metrics"]["ssim"] == pytest.approx(recorded["ssim"], abs=0.02)
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
        ("shelf/fp32", "qnnpack", "--engine: 'qnnpack' has no file of its own; expected one of xnnpack, onnxruntime, "),
    ],
)
def test_what_cannot_be_exported_is_said(shelf, monkeypatch, capsys, tmp_path, what, engine, message):
    monkeypatch.setattr("grid.run.export.cell.missing", lambda engine: None)
    assert shelf.export("--export", what, "--engine", engine, "--out", str(tmp_path / "out")) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_engine_that_is_not_installed_names_the_command(shelf, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert shelf.export("--export", f"shelf/{CELL}", "--out", str(tmp_path / "out")) == 2
    assert "pip install -r requirements-engines.txt" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(len(INSTALLED) < 2, reason="make engines")
def test_all_engines_have_the_same_integers_and_one_card_with_their_agreement(shelf, monkeypatch, capsys, tmp_path):
    *kept, lost = INSTALLED if len(INSTALLED) > 2 else (*INSTALLED, "none")
    real = catalog.missing
    monkeypatch.setattr("grid.run.export.cell.missing", lambda one: f"{one}: pip" if one == lost else real(one))
    assert shelf.export("--export", f"shelf/{CELL}", "--engine", "all", "--out", str(tmp_path)) == 0
    printed = capsys.readouterr().out
    card = json.loads((tmp_path / "card.json").read_text())
    assert [file["engine"]["name"] for file in card["files"]] == kept
    assert all((tmp_path / file["name"]).is_file() for file in card["files"])
    assert len(card["int8_weights_sha256"]) == 64
    if lost != "none":
        assert card["left_out"][lost] == f"{lost}: pip"
        assert f"no file for {lost}: {lost}: pip" in printed
    names = ["simulation", *kept]
    pairs = [(pair["one"], pair["other"]) for pair in card["agreement"]]
    assert pairs == list(itertools.combinations(names, 2))
    with (tmp_path / "agreement.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["one"], row["other"]) for row in rows] == pairs
    by_name = {file["engine"]["name"]: file for file in card["files"]} | {"simulation": card["simulation"]}
    for row, pair in zip(rows, card["agreement"], strict=True):
        assert float(row["ssim_one"]) == by_name[row["one"]]["metrics"]["ssim"]
        assert float(row["ssim_other"]) == by_name[row["other"]]["metrics"]["ssim"]
        assert 0 <= pair["mean_levels"] <= pair["largest_levels"] <= 255
        assert row["one"] in printed
    assert (tmp_path / "run.py").is_file()


def test_all_fails_only_where_no_engine_can_write(shelf, monkeypatch, capsys, tmp_path):
    def refusing(*arguments):
        raise ValueError("no such operator\nand a long trace")

    monkeypatch.setattr("grid.run.export.cell.missing", lambda engine: f"{engine}: pip" if engine == "litert" else None)
    monkeypatch.setattr("grid.run.export.cell.export", refusing)
    assert shelf.export("--export", f"shelf/{CELL}", "--engine", "all", "--out", str(tmp_path)) == 2
    assert "no engine takes the network" in (said := capsys.readouterr().err)
    assert "it does not take the network: no such operator" in said
    assert not list(tmp_path.glob("network.*"))


def test_other_integers_in_one_of_the_files_are_an_error(shelf, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("grid.run.export.cell.missing", lambda engine: None)
    monkeypatch.setattr("grid.run.export.cell._written", lambda source, store, engine, out: {"int8_weights": engine})
    assert shelf.export("--export", f"shelf/{CELL}", "--engine", "all", "--out", str(tmp_path)) == 1
    assert f"the files of {', '.join(catalog.PACKAGES)} have different int8 weights" in capsys.readouterr().err
    assert not (tmp_path / "card.json").exists()
