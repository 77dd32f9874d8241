"""The promises of a stage and of a cell, kept without Ray: what is recorded, shared, refused, and repeatable."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from grid.stages import run
from grid.stages.float_network import FLOAT_TOLERANCE
from grid.stages.run import run_cell, run_node
from grid.storage.result_store import RECORD_KEYS, StageStore
from model.data.pack import Pack
from model.tasks.depth import depth_metrics
from quant.artifact import load_network
from tests.grid.tiny import CELLS, Computed, space_of, written

INT8 = tuple(name for name in CELLS if "fp32" not in name)
NAMES = {"mse", "ssim", "abs_rel", "rmse_m", "delta1"}
TEST_METRICS = NAMES | {f"val_{name}" for name in NAMES} | {"size_mb", "test_images", "val_images"}
LATENCY_METRICS = {"latency_ms_p50", "latency_ms_p90", "latency_ratio", "latency_ratio_low", "latency_ratio_high"}
LATENCY_METRICS |= {"reference_ms_p50", "pairs", "profiler_step_ms", "load_ratios", "ready_s"}
OPERATOR_SHARES = {"time_in_float", "time_in_conversions"}


@pytest.fixture(scope="module")
def grid(computed_grid) -> Computed:
    return computed_grid


# ---- what a cell leaves


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_computes_its_whole_chain_and_every_stage_leaves_a_full_record(records, grid, store, name):
    found = records[name]
    assert " ".join(found) == CELLS[name]
    for stage, record in found.items():
        assert set(RECORD_KEYS) | {"id", "host", "files"} == set(record)
        assert record["stage"] == stage
        assert record["seconds"] > 0
        assert record["inputs"] == [list(pair) for pair in grid.node(name, stage).inputs]
        assert store.verify(record["id"])


@pytest.mark.parametrize("name", CELLS)
def test_tests_and_latencies_have_all_figures_that_the_results_show(records, name):
    expected = set(TEST_METRICS)
    if name != "fp32":
        expected |= {"sqnr_db", "val_sqnr_db", "noise_rms_m", "noise_to_error"}
    if name in INT8:
        expected.add("simulated_ssim")
    evaluated, profiled = records[name]["evaluate"]["metrics"], records[name]["profile"]["metrics"]
    assert set(evaluated) == expected
    assert set(profiled) == LATENCY_METRICS | (OPERATOR_SHARES if name in INT8 else set())
    assert evaluated["test_images"] == 4
    assert 0 < profiled["latency_ratio_low"] <= profiled["latency_ratio"] <= profiled["latency_ratio_high"]
    assert 0 < profiled["latency_ms_p50"] <= profiled["latency_ms_p90"]


@pytest.mark.parametrize("name", CELLS)
def test_test_figures_are_those_of_the_kept_predictions_on_all_test_images(records, store, tiny, name):
    record = records[name]["evaluate"]
    prediction = torch.from_numpy(np.load(store.path(record["id"]) / "predictions.npy"))
    truth = Pack(tiny.pack).targets("test")
    assert prediction.shape == truth.shape
    again = depth_metrics(prediction, truth)
    assert {key: record["metrics"][key] for key in again} == pytest.approx(again, rel=1e-6)


@pytest.mark.parametrize("name", INT8)
def test_an_int8_cell_states_that_its_artifact_reloads_exactly_and_how_far_its_simulation_is(records, store, name):
    converted, evaluated = records[name]["convert"], records[name]["evaluate"]["metrics"]
    spread = np.load(store.path(records[name]["evaluate"]["id"]) / "predictions.npy").std()
    assert converted["asserted"]["reloads_exactly"] is True
    assert converted["asserted"]["weight_freeze"] > 0
    assert not {key for key in converted["asserted"] if key.endswith(("_follow", "_calibrate"))}
    assert converted["metrics"]["simulated_gap_mean"] < 0.2 * spread
    assert len(converted["metrics"]["graph_hash"]) == 64
    assert abs(evaluated["simulated_ssim"] - evaluated["ssim"]) < 0.01


def test_float_stages_state_how_little_they_changed_the_float_function(records):
    changes = [
        record["asserted"]["float_change"]
        for found in records.values()
        for stage, record in found.items()
        if stage in ("fuse", "equalize")
    ]
    assert len(changes) >= 4
    assert all(0 <= change <= FLOAT_TOLERANCE for change in changes)


def test_calibration_states_its_images_and_that_nothing_was_left_observing(records):
    asserted = records["per_channel-ptq-equalize=off"]["calibrate"]["asserted"]
    assert len({*asserted["images"], *asserted["outliers"]}) == len(asserted["images"]) + len(asserted["outliers"]) == 4
    assert {*asserted["images"], *asserted["outliers"]} <= set(range(12))
    assert asserted["images"]
    assert asserted["activation_freeze"] > 0
    assert not asserted["training"]


def test_bias_correction_states_its_images_and_moves_biases_alone(records, store):
    for name in ("per_channel-ptq-equalize=off", "fuse_bn-per_channel-ptq+qat-equalize=on"):
        calibrated, corrected = (records[name][stage] for stage in ("calibrate", "correct_bias"))
        expected = {key: value for key, value in calibrated["asserted"].items() if key != "outliers"}
        assert corrected["asserted"] == expected, "no image that calibration has not, and all is still frozen"
        before, after = (load_network(store.path(record["id"])).state_dict() for record in (calibrated, corrected))
        moved = {key for key, value in before.items() if not torch.equal(value, after[key])}
        assert len(moved) > 50
        assert not {key for key in moved if not key.endswith(("bias", "running_mean"))}


def test_fine_tuning_states_that_it_trained_with_fake_quantization_on(records):
    for name in ("per_channel-qat-equalize=on", "fuse_bn-per_channel-ptq+qat-equalize=on"):
        record = records[name]["finetune"]
        assert record["asserted"]["training"] is True
        assert not {key for key in record["asserted"] if key.endswith(("_off", "_calibrate"))}
        assert [row["epoch"] for row in record["history"]] == [0, 1]
        assert "train_loss" not in record["history"][0], "nothing is trained yet"
        assert {"train_loss", "val_ssim"} <= set(record["history"][1])
    cold, warm = (records[name]["finetune"]["asserted"] for name in INT8[2:])
    for kind in ("weight", "activation"):
        assert cold[f"{kind}_follow"] > 0, "without calibration the ranges follow the data"
        assert warm[f"{kind}_freeze"] > 0, "calibrated ranges are kept"
        assert f"{kind}_follow" not in warm
    assert "weight_freeze" not in cold


def test_an_int8_network_is_a_third_of_the_float_one_and_folding_makes_that_smaller(records):
    size = {name: found["evaluate"]["metrics"]["size_mb"] for name, found in records.items()}
    assert size["fp32"] == pytest.approx(5.05, rel=0.02)
    assert size["fp32-fuse_bn"] == pytest.approx(4.89, rel=0.02)
    for name in INT8:
        assert size[name] == pytest.approx(1.61, rel=0.02)


# ---- what is shared


def test_a_second_run_computes_nothing(records, grid, context, monkeypatch):
    before = written(context.storage)
    monkeypatch.setattr(run, "_function", {})  # a dict cannot be called: any stage that runs fails
    again = {name: run_cell(grid.plan, grid.cell(name), context) for name in CELLS}
    assert again == records
    assert written(context.storage) == before


def test_cells_share_the_stages_that_they_have_in_common(records):
    ids = {record["id"] for found in records.values() for record in found.values()}
    assert sum(len(found) for found in records.values()) > len(ids)
    assert len({found["load"]["id"] for found in records.values()}) == 1


def test_folding_first_changes_nothing_about_a_calibrated_network_and_it_is_measured_once(records):
    """Without equalization calibration sees the folded convolutions either way."""
    first, second = records["per_channel-ptq-equalize=off"], records["fuse_bn-per_channel-ptq-equalize=off"]
    assert first["convert"]["id"] != second["convert"]["id"]
    assert first["convert"]["metrics"]["graph_hash"] == second["convert"]["metrics"]["graph_hash"]
    assert first["profile"]["id"] != second["profile"]["id"]
    assert first["profile"]["metrics"] == second["profile"]["metrics"], "two measurements are never equal"
    hashes = {records[name]["convert"]["metrics"]["graph_hash"] for name in INT8}
    assert len(hashes) == 3, "the other recipes are networks of their own"


@pytest.mark.slow
def test_a_chain_is_bit_deterministic_whatever_its_process_did_before(records, grid, context, tmp_path):
    name = "fuse_bn-per_channel-ptq+qat-equalize=on"
    cell = grid.cell(name)
    other = replace(context, storage=tmp_path)
    torch.manual_seed(987)
    np.random.seed(987)
    with torch.no_grad():
        for node in grid.plan.nodes:
            if cell.key in node.cells and node.stage != "profile":
                run_node(node, other)
    ones, twos = StageStore(context.storage), StageStore(other.storage)
    for stage, node_id in cell.nodes.items():
        if stage == "profile":
            continue
        one, two = ones.record(node_id), twos.record(node_id)
        assert one["metrics"] == two["metrics"], stage
        assert one["asserted"] == two["asserted"], stage
        assert one["history"] == two["history"], stage
        if "network.safetensors" in one["files"]:
            assert one["files"]["network.safetensors"] == two["files"]["network.safetensors"], stage
        if "predictions.npy" in one["files"]:
            assert one["files"]["predictions.npy"] == two["files"]["predictions.npy"], stage
    one, two = (torch.load(store.path(cell.nodes["convert"]) / "network.pt") for store in (ones, twos))
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert str(value) == str(two[key]) if not isinstance(value, torch.Tensor) else equal(value, two[key]), key


def equal(one: torch.Tensor, two: torch.Tensor) -> bool:
    if one.is_quantized:
        return torch.equal(one.int_repr(), two.int_repr()) and torch.equal(one.dequantize(), two.dequantize())
    return torch.equal(one, two)


# ---- training that is cut short


class Cut(Exception):
    """What the tests cut a training with."""


@pytest.mark.parametrize(("cell", "stage"), [("fp32", "train"), ("per_channel-qat", "finetune")])
def test_training_cut_short_goes_on_after_its_last_epoch_to_the_same_network(tiny, tmp_path, cell, stage):
    overrides = (
        "train.init=random",
        "train.epochs=2",
        "qat.epochs=2",
        "equalize=false",
        "qat.freeze_ranges_after=0.75",
    )
    space = space_of(tmp_path, "{method: [qat]}", overrides=overrides)
    plan = tiny.plan(space, trained=stage == "train")
    wanted = next(one.nodes[stage] for one in plan.cells if one.name == cell)
    node = next(one for one in plan.nodes if one.id == wanted)
    seen: list[float] = []

    def cut(info):
        seen.append(info.get("epoch", 0))
        if info.get("epoch") == 2:
            raise Cut

    ids = {}
    for name in ("whole", "cut"):
        here = tiny.context(tmp_path / name)
        for root in plan.nodes:
            if root.stage in ("load", "train") and root.id != node.id:
                run_node(root, here)
        if name == "cut":
            with pytest.raises(Cut):
                run_node(node, here, cut)
            assert not StageStore(here.storage).has(node.id)
            seen.clear()
            run_node(node, here, lambda info: seen.append(info["epoch"]))
            assert set(seen) == {2}, "the first epoch is not trained again"
        else:
            run_node(node, here)
        ids[name] = StageStore(here.storage).record(node.id)
    assert ids["cut"]["history"] == ids["whole"]["history"]
    assert [row["epoch"] for row in ids["whole"]["history"]] == ([1, 2] if stage == "train" else [0, 1, 2])
    assert ids["cut"]["files"] == ids["whole"]["files"]
