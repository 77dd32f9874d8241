"""The promises of a stage and of a cell, kept without Ray: what is recorded, shared, refused, and repeatable."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from grid.planning.plan import Node
from grid.stages import float_network, quantize, run
from grid.stages.float_network import FLOAT_TOLERANCE
from grid.stages.run import run_cell, run_node
from grid.stages.work import Context, StageError
from grid.storage.result_store import RECORD_KEYS, StageStore, write_record
from model.data.pack import Pack
from model.metrics import depth_metrics
from model.network.checkpoint import save_checkpoint
from model.network.depth_network import build_network
from quant.artifact import Form, load_network, save_network
from quant.prepare import prepare, quantizers
from quant.state import QuantizerStateError
from tests.grid.tiny import CELLS, SPEC, Computed, World, flip_byte, space_of, world, written

INT8 = tuple(name for name in CELLS if "fp32" not in name)
TEST_METRICS = {"mse", "ssim", "abs_rel", "rmse_m", "delta1", "size_mb", "test_images"}
LATENCY_METRICS = {"latency_ms_p50", "latency_ms_p90", "latency_ratio", "latency_ratio_low", "latency_ratio_high"}
LATENCY_METRICS |= {"reference_ms_p50", "pairs", "profiler_step_ms"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> World:
    return world(tmp_path_factory)


@pytest.fixture(scope="module")
def grid(computed_grid) -> Computed:
    return computed_grid


@pytest.fixture
def records(grid) -> dict[str, dict[str, dict]]:
    return grid.records


@pytest.fixture
def context(grid) -> Context:
    return grid.context


@pytest.fixture
def store(context) -> StageStore:
    return StageStore(context.storage)


@pytest.fixture
def copied(context, tmp_path) -> Context:
    """The same results in a store that a test may damage."""
    shutil.copytree(context.storage / "stages", tmp_path / "stages")
    return replace(context, storage=tmp_path)


def without(context: Context, *nodes: Node) -> Context:
    """The store with some results taken out."""
    for node in nodes:
        shutil.rmtree(context.storage / "stages" / node.id)
    return context


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
        expected.add("sqnr_db")
    if name in INT8:
        expected.add("simulated_ssim")
    evaluated, profiled = records[name]["evaluate"]["metrics"], records[name]["profile"]["metrics"]
    assert set(evaluated) == expected
    assert set(profiled) == LATENCY_METRICS
    assert evaluated["test_images"] == 4
    assert 0 < profiled["latency_ratio_low"] <= profiled["latency_ratio"] <= profiled["latency_ratio_high"]
    assert 0 < profiled["latency_ms_p50"] <= profiled["latency_ms_p90"]


@pytest.mark.parametrize("name", CELLS)
def test_test_figures_are_those_of_the_kept_predictions_on_all_test_images(records, store, tiny, name):
    record = records[name]["evaluate"]
    prediction = torch.from_numpy(np.load(store.path(record["id"]) / "predictions.npy"))
    truth = Pack(tiny.pack).depth("test")
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
    overrides = ("train.epochs=2", "qat.epochs=2", "equalize=false", "qat.freeze_ranges_after=0.75")
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


# ---- what is refused


def test_convert_refuses_a_network_with_a_quantizer_that_is_not_frozen(grid, copied):
    calibrated = grid.node("per_channel-ptq-equalize=off", "correct_bias")
    convert = grid.node("per_channel-ptq-equalize=off", "convert")
    prepared = load_network(copied.storage / "stages" / calibrated.id)
    name = next(name for name, quantizer in quantizers(prepared).items() if not quantizer.fixed)
    quantizers(prepared)[name].set_mode("moving_average")
    without(copied, calibrated, convert)
    replace_result(copied, calibrated, prepared, Form(SPEC, False, "prepared", False, "per_channel"))
    with pytest.raises(QuantizerStateError, match=f"{name} is moving_average"):
        run_node(convert, copied)
    assert not StageStore(copied.storage).has(convert.id)


def test_convert_refuses_a_network_that_was_never_calibrated(grid, copied):
    calibrated = grid.node("per_channel-ptq-equalize=off", "correct_bias")
    convert = grid.node("per_channel-ptq-equalize=off", "convert")
    prepared = prepare(build_network(SPEC).eval(), "per_channel").eval()
    for quantizer in quantizers(prepared).values():
        quantizer.set_mode("calibrate")
    without(copied, calibrated, convert)
    replace_result(copied, calibrated, prepared, Form(SPEC, False, "prepared", False, "per_channel"))
    with pytest.raises(QuantizerStateError, match=r"is calibrate.* and \d+ more"):
        run_node(convert, copied)


def replace_result(context: Context, node: Node, network: torch.nn.Module, form: Form) -> None:
    """Another network as the result of a node, with a record and checksums that are in order."""
    with StageStore(context.storage).writer(node.id) as folder:
        save_network(folder, network, form)
        empty = {"metrics": {}, "asserted": {}, "history": [], "seconds": 0.0}
        settings, inputs = dict(node.settings), [list(pair) for pair in node.inputs]
        write_record(folder, {"stage": node.stage, "settings": settings, "inputs": inputs, **empty})


def test_a_damaged_upstream_result_is_quarantined_and_named(grid, copied):
    fuse, load = (grid.node("fp32-fuse_bn", stage) for stage in ("fuse", "load"))
    without(copied, fuse)
    flip_byte(copied.storage / "stages" / load.id / "network.safetensors")
    with pytest.raises(StageError, match=f"fuse: its network {load.id} is missing or damaged"):
        run_node(fuse, copied)
    store = StageStore(copied.storage)
    assert not store.has(load.id)
    assert not store.has(fuse.id)
    assert [path.name.split("-")[0] for path in (copied.storage / "quarantine").iterdir()] == [load.id]
    run_node(load, copied)
    assert run_node(fuse, copied)["asserted"]["float_change"] <= FLOAT_TOLERANCE


def test_a_reference_that_is_missing_is_named(grid, copied):
    evaluate, fp32 = grid.node("fp32-fuse_bn", "evaluate"), grid.node("fp32", "evaluate")
    without(copied, evaluate, fp32)
    with pytest.raises(StageError, match=f"evaluate: its reference {fp32.id} is missing"):
        run_node(evaluate, copied)


@pytest.mark.parametrize(("stage", "step"), [("fuse", "fuse_bn"), ("equalize", "equalize")])
@pytest.mark.parametrize(("change", "kept"), [(5e-5, True), (2e-4, False)])
def test_a_float_stage_that_changes_the_function_by_more_than_1e_4_fails(
    grid, copied, monkeypatch, stage, step, change, kept
):
    node = grid.node("fuse_bn-per_channel-ptq+qat-equalize=on", stage)
    without(copied, node)

    def shifted(network, *more):
        network = copy.deepcopy(network)
        with torch.no_grad():
            network.get_parameter("head.layers.1.bias").add_(change)
        return network

    monkeypatch.setattr(float_network, step, shifted)
    if kept:
        assert run_node(node, copied)["asserted"]["float_change"] == pytest.approx(change, abs=2e-5)
    else:
        with pytest.raises(StageError, match=rf"{stage} changed the float function by 0\.000[12]\d*; .*0\.0001"):
            run_node(node, copied)
        assert not StageStore(copied.storage).has(node.id)


@pytest.mark.parametrize(
    ("stage", "error", "message"),
    [
        ("fuse", StageError, "fuse changed the float function by nan"),
        ("calibrate", FloatingPointError, "not finite"),
        ("evaluate", FloatingPointError, "1024 predicted depths are not finite"),
    ],
)
def test_a_network_that_gives_nan_fails_its_next_stage(grid, copied, stage, error, message):
    cell = {"fuse": "fp32-fuse_bn", "calibrate": "per_channel-ptq-equalize=off", "evaluate": "fp32"}[stage]
    load, node = (grid.node(cell, one) for one in ("load", stage))
    broken = load_network(copied.storage / "stages" / load.id)
    with torch.no_grad():
        broken.decoder.layers[1].fam_4.layers[0].weight[0, 0] = float("nan")
    without(copied, load, node)
    replace_result(copied, load, broken, Form(SPEC, False, "float"))
    with pytest.raises(error, match=message):
        run_node(node, copied)
    assert not StageStore(copied.storage).has(node.id)


def test_a_checkpoint_that_changed_after_planning_is_refused(grid, tiny, tmp_path):
    other = tmp_path / "tiny.safetensors"
    shutil.copy(tiny.checkpoint, other)
    context = replace(tiny.context(tmp_path), checkpoint=other)
    load = grid.node("fp32", "load")
    torch.manual_seed(5)
    save_checkpoint(build_network(SPEC), SPEC, other, {})
    with pytest.raises(StageError, match=rf"load: {other} changed after the grid was planned"):
        run_node(load, context)
    assert not StageStore(tmp_path).has(load.id)


def test_load_without_a_checkpoint_is_refused(grid, tiny, tmp_path):
    with pytest.raises(StageError, match="no checkpoint was given"):
        run_node(grid.node("fp32", "load"), replace(tiny.context(tmp_path), checkpoint=None))


def test_an_int8_network_that_reloads_differently_is_refused(grid, copied, monkeypatch):
    convert = grid.node("per_channel-ptq-equalize=off", "convert")
    without(copied, convert)
    save = quantize.save_network

    def save_another(folder, network, form):
        save(folder, network, form)
        tensors = torch.load(folder / "network.pt")
        key = next(key for key in tensors if key.endswith("_scale"))
        tensors[key] = tensors[key] * 2
        torch.save(tensors, folder / "network.pt")

    monkeypatch.setattr(quantize, "save_network", save_another)
    with pytest.raises(StageError, match="the saved network computes something else"):
        run_node(convert, copied)


def test_a_damaged_shared_measurement_is_made_again_and_never_copied(grid, copied, records):
    name = "fuse_bn-per_channel-ptq-equalize=off"
    profile = grid.node(name, "profile")
    without(copied, profile)
    planned = {node.id for node in grid.plan.nodes}
    for folder in (copied.storage / "stages").iterdir():
        if folder.name not in planned and json.loads((folder / "result.json").read_text())["stage"] == "shared profile":
            flip_byte(Path(folder) / "operators.txt")
    again = run_node(profile, copied)
    assert again["metrics"] != records[name]["profile"]["metrics"]
    assert any((copied.storage / "quarantine").iterdir())
