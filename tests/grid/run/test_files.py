"""A run's folder and the store are enough to make its rows, its reports and its commands again."""

import csv
import json
import shlex
import shutil
from types import SimpleNamespace

import pytest

from grid.planning.plan import Plan, make_plan
from grid.results.rows import commands
from grid.results.target import parse_target
from grid.run.actions import report
from grid.run.files import FILE, RunFiles, _references
from grid.run.options import parse
from grid.space.search_space import load_space
from grid.storage.result_store import StageStore
from model.errors import InputError
from tests.grid.tiny import Computed, space_file, space_of, world

AXES = "{method: [ptq, qat], seed: [0, 1], rounding: [false, true], fuse_bn: [false, true]}"
EXCLUDE = "exclude: [{when: {fuse_bn: true, method: qat}, reason: known}]"
CONTEXT = {"run": "made", "command": "python runner.py --grid tiny.yaml", "origin": "rooms", "test_images": 4}


@pytest.fixture(scope="module")
def grid(computed_grid) -> Computed:
    return computed_grid


def test_a_plan_reads_back_with_all_its_cells(tmp_path, tmp_path_factory):
    plan = world(tmp_path_factory).plan(space_of(tmp_path, AXES, EXCLUDE))
    RunFiles(tmp_path, plan, CONTEXT, {"node": "reason"}, {"fp32": "run-1"}).save()
    read = RunFiles.load(tmp_path)
    assert read.plan == Plan(plan.cells, (), plan.excluded, plan.repeats)
    assert [list(cell.relevant) for cell in read.plan.cells] == [sorted(cell.relevant) for cell in plan.cells]
    assert (read.context, read.failures, read.mlflow_runs) == (CONTEXT, {"node": "reason"}, {"fp32": "run-1"})
    text = (tmp_path / FILE).read_text()
    assert text.count("train.learning_rate") == 1 + text.split('"cells"')[1].count("train.learning_rate")


def test_the_reports_are_made_of_the_store_alone(grid, tmp_path):
    store = StageStore(grid.context.storage)
    RunFiles(tmp_path, grid.plan, CONTEXT).save()
    files = RunFiles.load(tmp_path)
    written, _ = files.write(files.rows(store), store, parse_target("minimize size_mb"))
    assert {path.name for path in written} >= {"report.md", "report.html", "results.csv", "per_image.csv", FILE}
    report = (tmp_path / "report.md").read_text()
    assert all(f"`{cell.name}`" in report for cell in grid.plan.cells)
    assert "minimize size_mb" in report
    assert "--set method=" in report
    before = (tmp_path / "results.csv").read_bytes()
    again = RunFiles.load(tmp_path)
    again.write(again.rows(store), store, None)
    assert (tmp_path / "results.csv").read_bytes() == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cells": []}', '{"common": 1, "cells": [{}], "excluded": []}'])
def test_a_folder_without_a_whole_plan_is_refused_by_name(tmp_path, text):
    if text:
        (tmp_path / FILE).write_text(text)
    with pytest.raises(InputError, match=FILE):
        RunFiles.load(tmp_path)


def test_the_command_of_a_cell_plans_this_cell(tmp_path, tmp_path_factory):
    made = world(tmp_path_factory)
    plan = made.plan(space_of(tmp_path, AXES))
    told = commands(plan, "python runner.py --grid tiny.yaml")
    assert set(told) == {cell.name for cell in plan.cells}
    for cell in plan.cells:
        words = shlex.split(told[cell.name])
        overrides = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
        seeds = [int(words[words.index("--seeds") + 1])]
        again = made.plan(load_space(tmp_path / "tiny.yaml", overrides, seeds))
        assert cell.key in {one.key for one in again.cells}
        others = [one for one in again.cells if one.settings["method"] != "fp32" and one.key != cell.key]
        assert cell.settings["method"] == "fp32" or not others, "this cell and no other but the baselines"


def test_a_seed_is_in_the_command_where_there_are_several(tmp_path, tmp_path_factory):
    made = world(tmp_path_factory)
    space = load_space(space_file(tmp_path / "tiny.yaml", "{method: [ptq, qat]}"), (), [3, 5])
    told = commands(make_plan(space, "0" * 64, "0" * 16, None), "python runner.py --seeds 3,5")
    assert made
    assert {text.rpartition("--seeds ")[2] for text in told.values()} == {"3", "5"}
    assert json.dumps(told)


def test_the_report_is_made_again_with_another_margin(grid, tmp_path, capsys):
    shutil.copytree(grid.context.storage / "stages", tmp_path / "stages")
    RunFiles(tmp_path / "runs" / "first", grid.plan, {**CONTEXT, "run": "first"}).save()
    margins = ["--margin", "ssim=0.25", "--margin", "latency=7%"]
    assert report(parse(["--report", "first", "--storage", str(tmp_path), *margins])) == 0
    text = (tmp_path / "runs" / "first" / "report.md").read_text()
    assert "SSIM: 0.25" in text
    assert "latency: 7 %" in text
    with (tmp_path / "runs" / "first" / "per_image.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["cell"] for line in lines} == set(grid.records)
    assert {line["split"] for line in lines} == {"test", "val"}
    with pytest.raises(InputError, match="unknown metric"):
        report(parse(["--report", "first", "--storage", str(tmp_path), "--margin", "sim=0.25"]))


def test_the_float_root_of_a_network_with_several_outputs_is_found(tmp_path):
    records = {"made": {"inputs": [["reference", "root"]]}, "root": {"inputs": []}}
    store = SimpleNamespace(record=records.__getitem__, path=tmp_path.joinpath)
    (tmp_path / "root").mkdir()
    assert _references({"fp32": "root", "int8": "made"}, store) == {}
    (tmp_path / "root" / "predictions.heat.npy").touch()
    assert _references({"fp32": "root", "int8": "made"}, store) == {"int8": tmp_path / "root" / "predictions.npy"}
