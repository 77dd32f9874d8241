"""What a stage refuses: inputs that are missing, damaged or in another state, and steps that change the function."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from grid.stages import float_network, quantize
from grid.stages.float_network import FLOAT_TOLERANCE
from grid.stages.run import run_node
from grid.stages.work import StageError
from grid.storage.result_store import StageStore
from model.network.build import build_network
from model.network.checkpoint import save_checkpoint
from quant.artifact import Form, load_network
from quant.prepare import prepare, quantizers
from quant.state import QuantizerStateError
from tests.grid.stages.damage import replace_result, without
from tests.grid.tiny import SPEC, Computed, flip_byte


@pytest.fixture(scope="module")
def grid(computed_grid) -> Computed:
    return computed_grid


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
        ("evaluate", FloatingPointError, "1024 predicted values are not finite"),
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
