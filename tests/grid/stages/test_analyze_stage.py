"""The analyze and mix stages in a grid: where they stand in the plan, what they leave, and how it is reported."""

import csv
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from grid.planning.output_files import ANALYSIS_CSV, ANALYSIS_ERRORS, ANALYSIS_JSON, ANALYSIS_RANGES, INSPECTION
from grid.planning.plan import Plan, make_plan
from grid.planning.stage_table import stage_named
from grid.report.document import plain_text
from grid.report.inputs import ReportInputs
from grid.report.inspection import headlines
from grid.report.report import write_report
from grid.report.sections.noise import LEGEND, sites_table
from grid.results.rows import result_rows
from grid.space.search_space import load_space
from grid.stages.analysis_files import COLUMNS, write_analysis
from grid.stages.run import run_node
from grid.storage.result_store import StageStore
from quant.analysis.site_errors import SiteError
from quant.artifact import load_network
from quant.inspection.inspection import Inspection
from quant.prepare import quantizers
from tests.grid.measures import RESULT_COLUMNS
from tests.grid.report.report_rows import context as report_context
from tests.grid.report.report_rows import grid_rows
from tests.grid.tiny import put, space_of, world

PLAIN = ("rounding=false", "bias_correction=false")


def full(*overrides: str) -> Plan:
    return make_plan(load_space("full", [*PLAIN, *overrides]), "sha", "data")


def by_id(plan: Plan) -> dict:
    return {node.id: node for node in plan.nodes}


# ---- the plan


def test_an_analysis_looks_at_the_network_that_is_converted_and_nothing_depends_on_it():
    plan = full("analyze=true")
    nodes = by_id(plan)
    int8 = [cell for cell in plan.cells if "convert" in cell.nodes]
    assert len(int8) == 12
    for cell in plan.cells:
        assert ("analyze" in cell.nodes) == (cell in int8)
    for cell in int8:
        converted, analyzed = (nodes[cell.nodes[stage]] for stage in ("convert", "analyze"))
        assert dict(analyzed.inputs)["network"] == dict(converted.inputs)["network"]
        assert list(cell.nodes)[-3:] == ["evaluate", "profile", "analyze"]
    read = {parent for node in plan.nodes for _, parent in node.inputs}
    assert not read & {node.id for node in plan.nodes if node.stage == "analyze"}
    assert Counter(node.stage for node in plan.nodes)["analyze"] == 12


def test_an_analysis_changes_neither_other_stages_nor_the_cell():
    without, analyzed, more = full(), full("analyze=true"), full("analyze.images=3")
    assert [cell.key for cell in without.cells] == [cell.key for cell in analyzed.cells]
    assert [cell.key for cell in without.cells] == [cell.key for cell in more.cells]
    ids = {node.id for node in analyzed.nodes if node.stage != "analyze"}
    assert ids == {node.id for node in without.nodes}
    changed = {node.id for node in analyzed.nodes} ^ {node.id for node in more.nodes}
    assert len(changed) == 2 * 12


def test_errors_are_told_against_the_calibrated_network_unless_weights_were_trained():
    plan = full("analyze=true")
    nodes = by_id(plan)
    for cell in plan.cells:
        if "analyze" in cell.nodes:
            original = dict(nodes[cell.nodes["analyze"]].inputs).get("original")
            assert original == (cell.nodes["calibrate"] if cell.settings["method"] == "ptq" else None)


def test_mixed_precision_stands_behind_calibration_and_before_fine_tuning_and_not_in_a_cold_start():
    plan = full("mixed_precision=true")
    chains = {cell.settings["method"]: [s for s in cell.nodes if s != "fuse"] for cell in plan.cells}
    assert chains["fp32"] == ["load", "evaluate", "profile"]
    assert chains["ptq"] == ["load", "equalize", "calibrate", "mix", "convert", "evaluate", "profile"]
    assert chains["qat"] == ["load", "equalize", "finetune", "convert", "evaluate", "profile"]
    assert chains["ptq+qat"] == ["load", "equalize", "calibrate", "mix", "finetune", "convert", "evaluate", "profile"]
    nodes = by_id(plan)
    for cell in plan.cells:
        if "mix" in cell.nodes:
            inputs = dict(nodes[cell.nodes["mix"]].inputs)
            assert inputs["original"] == cell.nodes["calibrate"]
            follower = "finetune" if "finetune" in cell.nodes else "convert"
            assert dict(nodes[cell.nodes[follower]].inputs)["network"] == cell.nodes["mix"]


def test_mixed_precision_as_an_axis_gives_cells_of_their_own_where_it_has_a_meaning():
    names = [cell.name for cell in full("mixed_precision=[false, true]", "fuse_bn=false").cells]
    assert "per_channel-ptq-mixed_precision=off" in names
    assert "per_channel-ptq-mixed_precision=on" in names
    assert names.count("per_channel-qat") == 1


# ---- what the stages leave


@pytest.fixture(scope="module")
def mixed_grid(tmp_path_factory):
    """Cells with mixed precision, computed up to their int8 networks, and the analysis of the one by calibration."""
    tiny = world(tmp_path_factory)
    folder = tmp_path_factory.mktemp("mixed")
    axes = "{method: [ptq, ptq+qat]}"
    settings = ("equalize=false", "fuse_bn=true", *PLAIN, "qat.epochs=1", "qat.images_per_epoch=2")
    settings += ("mixed_precision.float_sites=3", "mixed_precision.images=1", "analyze.images=1")
    plan = tiny.plan(space_of(folder, axes, overrides=settings))
    context = tiny.context(folder)
    for node in plan.nodes:
        if node.stage not in ("evaluate", "profile") and (node.stage != "analyze" or dict(node.inputs).get("original")):
            run_node(node, context)
    return plan, StageStore(folder)


def cell_of(plan: Plan, method: str):
    return next(cell for cell in plan.cells if cell.settings["method"] == method)


def test_the_worst_sites_are_off_in_all_that_follows_fine_tuning_too(mixed_grid):
    plan, store = mixed_grid
    names = set(store.record(cell_of(plan, "ptq").nodes["mix"])["asserted"]["float_sites"])
    assert len(names) == 3
    for method, stages in (("ptq", ["mix"]), ("ptq+qat", ["mix", "finetune"])):
        for stage in stages:
            network = load_network(store.path(cell_of(plan, method).nodes[stage]))
            assert {name for name, q in quantizers(network).items() if q.mode == "off"} == names
        converted = store.record(cell_of(plan, method).nodes["convert"])
        assert converted["asserted"].get("activation_off", 0) + converted["asserted"].get("weight_off", 0) == 3


def test_the_record_of_a_mixture_tells_what_was_kept_and_what_it_reached(mixed_grid):
    plan, store = mixed_grid
    record = store.record(cell_of(plan, "ptq").nodes["mix"])
    assert record["metrics"]["sites"] > 150
    assert record["metrics"]["sqnr_db"] > 0
    assert record["asserted"]["tried"] == [3]
    assert len(record["asserted"]["images"]) == 1


def test_a_mixture_is_measured_on_images_that_calibration_did_not_look_at(mixed_grid):
    plan, store = mixed_grid
    nodes = cell_of(plan, "ptq").nodes
    calibrated, mixed = (store.record(nodes[stage])["asserted"] for stage in ("calibrate", "mix"))
    assert len(mixed["measured_on"]) == 1
    assert not {*mixed["measured_on"]} & {*calibrated["images"], *calibrated["outliers"]}
    assert mixed["calibrated_on_them"] is False


def test_where_calibration_has_seen_all_a_mixture_is_measured_on_its_images_and_says_so(mixed_grid, tmp_path_factory):
    tiny, folder = world(tmp_path_factory), tmp_path_factory.mktemp("seen")
    more = ("equalize=false", "fuse_bn=true", *PLAIN, "calibrate.images=12", "mixed_precision.images=1")
    plan, context = tiny.plan(space_of(folder, "{method: [ptq]}", overrides=more)), tiny.context(folder)
    for node in plan.nodes:
        if node.stage in ("load", "fuse", "calibrate", "mix"):
            run_node(node, context)
    asserted = StageStore(folder).record(cell_of(plan, "ptq").nodes["mix"])["asserted"]
    assert asserted["measured_on"] == asserted["images"]
    assert asserted["calibrated_on_them"] is True


def test_an_analysis_lists_every_site_that_is_on_with_its_errors(mixed_grid):
    plan, store = mixed_grid
    mixture = store.record(cell_of(plan, "ptq").nodes["mix"])
    kept, sites = mixture["asserted"]["float_sites"], mixture["metrics"]["sites"]
    folder = store.path(cell_of(plan, "ptq").nodes["analyze"])
    assert all((folder / name).stat().st_size > 0 for name in stage_named("analyze").artifacts)
    with (folder / ANALYSIS_CSV).open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert tuple(lines[0]) == COLUMNS
    assert len(lines) == len({line["site"] for line in lines}) == sites - 3
    assert not {line["site"] for line in lines} & set(kept)
    isolated = [float(line["isolated_sqnr_db"]) for line in lines]
    assert isolated == sorted(isolated)
    document = json.loads((folder / ANALYSIS_JSON).read_text())
    assert document["images"] == 1
    assert [site["site"] for site in document["sites"]] == [line["site"] for line in lines]
    assert all(len(site["low"]) == site["channels"] for site in document["sites"])


def test_rows_tell_how_many_sites_stay_float_which_and_where_the_analysis_is(mixed_grid):
    plan, store = mixed_grid
    assert "float_sites" in RESULT_COLUMNS
    rows = {row["cell"]: row for row in result_rows(plan, store, {})}
    row = rows[cell_of(plan, "ptq").name]
    assert row["float_sites"] == 3
    assert row["kept_float"].split() == store.record(cell_of(plan, "ptq").nodes["mix"])["asserted"]["float_sites"]
    assert (Path(row["analysis"]) / ANALYSIS_CSV).is_file()
    assert rows["fp32"].get("float_sites") is None


def test_an_int8_cell_without_mixed_precision_has_no_site_in_float(tmp_path, tmp_path_factory):
    plan = world(tmp_path_factory).plan(space_of(tmp_path, "{method: [ptq]}"))
    store = StageStore(tmp_path)
    cell = cell_of(plan, "ptq")
    node = by_id(plan)[cell.nodes["convert"]]
    put(store, node, {"graph_hash": "h"}, asserted={"weight_freeze": 9, "activation_freeze": 9})
    row = next(row for row in result_rows(plan, store, {}) if row["cell"] == cell.name)
    assert row["float_sites"] == 0
    assert "kept_float" not in row


# ---- tables, pictures and the report


def made_up(count: int, channels: int = 5) -> tuple[SiteError, ...]:
    """Errors with a loudest site in the middle."""
    noise = np.random.default_rng(0)
    found = []
    for order in range(count):
        high = tuple(np.sort(noise.uniform(0.1, 3, channels)).tolist())
        kind = ("weight", "activation")[order % 2]
        name = f"encoder.layer{order}.weight_quantizer" if kind == "weight" else f"quantizers.layer_{order}"
        alone = 40.0 + abs(order - count // 2)
        clips = high if kind == "weight" else (3.0,)
        found.append(
            SiteError(
                name, kind, order, alone, 0.99, 10 ** (-alone / 10), 30.0, 60.0 - order, 0.98,
                tuple(-value for value in high), high, tuple(-value for value in clips), clips,
            )
        )  # fmt: skip
    return tuple(found)


def test_the_table_shows_the_ten_worst_first(tmp_path):
    write_analysis(tmp_path, made_up(31), 8)
    table = sites_table(tmp_path)
    assert len(table.rows) == 10
    worst = [plain_text(cell.spans) for cell in table.rows[0]]
    assert worst[:4] == ["1", "quantizers.layer_15", "activation", "40.0"]


@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_pictures_are_drawn_however_many_sites_there_are(tmp_path, count):
    write_analysis(tmp_path, made_up(count), 8)
    for name in (ANALYSIS_ERRORS, ANALYSIS_RANGES):
        assert np.asarray(Image.open(tmp_path / name)).std() > (5 if count else 0)


def test_the_report_has_a_table_and_its_own_copy_of_the_pictures_for_each_analyzed_cell(tmp_path):
    folder, run = tmp_path / "stage", tmp_path / "run"
    folder.mkdir()
    write_analysis(folder, made_up(12), 8)
    cells = ("per_channel-ptq", "per_tensor-ptq")
    inputs = ReportInputs(grid_rows(), report_context(), analyses=dict.fromkeys(cells, folder))
    text = write_report(run, inputs)[0].read_text()
    assert text.count("| 1 | `quantizers.layer_") + text.count("| 1 | `encoder.layer") == 2
    for cell in cells:
        assert f"### `{cell}`" in text
        for name in (f"{cell}-{ANALYSIS_ERRORS}", f"{cell}-{ANALYSIS_RANGES}"):
            assert f"]({name})" in text
            assert (run / name).read_bytes() == (folder / name.removeprefix(f"{cell}-")).read_bytes()
    assert plain_text(LEGEND) in re.sub("[*`]", "", text)


def test_the_report_tells_once_where_the_operators_of_like_cells_run(mixed_grid, tmp_path):
    plan, store = mixed_grid
    folder = store.path(cell_of(plan, "ptq").nodes["analyze"])
    older = tmp_path / "older"
    older.mkdir()
    write_analysis(older, made_up(3), 8)
    cells = ("per_channel-ptq", "per_tensor-ptq")
    inputs = ReportInputs(grid_rows(), report_context(), analyses={**dict.fromkeys(cells, folder), "fp32": older})
    text = write_report(tmp_path / "run", inputs)[0].read_text()
    section = text.partition("## What runs in int8")[2].partition("\n## ")[0]
    assert section.count("### `per_channel-ptq`, `per_tensor-ptq`") == 1
    found = Inspection.read(json.loads((folder / INSPECTION).read_text()))
    assert [one.engine for one in found.placements] + list(found.absent) != []
    assert sum(one.macs for one in found.operators) > 1e6
    for line in headlines(found):
        assert line.partition(":")[0] in section
    assert "fp32" not in section
