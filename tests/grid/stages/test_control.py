"""The control of QAT: the float network after QAT's own training, with nothing quantized."""

from pathlib import Path

import pytest
import torch
from torch import nn

from grid.planning.plan import Plan
from grid.results.rows import result_rows
from grid.stages.run import run_node
from grid.stages.work import Context
from grid.storage.result_store import StageStore
from quant.artifact import load_network, read_form
from quant.prepare import quantizers
from tests.grid.tiny import put, space_of, world

AXES = "{method: [qat, fp32-finetuned], fuse_bn: [false, true]}"
RATE = "qat.travel"
MORE = ("qat.epochs=2", "qat.images_per_epoch=6")


def computed(tmp_path_factory, *overrides: str) -> tuple[Plan, Context]:
    """A grid whose controls were computed."""
    here, folder = world(tmp_path_factory), tmp_path_factory.mktemp("controls")
    plan, context = here.plan(space_of(folder, AXES, "", (*MORE, *overrides))), here.context(folder)
    wanted = {node for cell in plan.cells if "finetuned" in cell.name for node in cell.nodes.values()}
    for node in plan.nodes:
        if node.id in wanted or (node.stage == "evaluate" and len(node.inputs) == 1):
            run_node(node, context)
    return plan, context


@pytest.fixture(scope="module")
def controls(tmp_path_factory) -> tuple[Plan, Context]:
    return computed(tmp_path_factory)


def network_of(plan: Plan, context: Context, name: str, stage: str) -> nn.Module:
    return load_network(folder_of(plan, context, name, stage))


def folder_of(plan: Plan, context: Context, name: str, stage: str) -> Path:
    cell = next(cell for cell in plan.cells if cell.name == name)
    return StageStore(context.storage).path(cell.nodes[stage])


@pytest.mark.parametrize("name", ["fp32-finetuned", "fp32-finetuned-live_bn"])
def test_it_is_a_float_network_whose_weights_moved(controls, name):
    plan, context = controls
    trained, start = (network_of(plan, context, name, stage) for stage in ("finetune_float", "equalize"))
    record = StageStore(context.storage).record(folder_of(plan, context, name, "finetune_float").name)
    assert read_form(folder_of(plan, context, name, "finetune_float")).form == "float"
    assert not quantizers(trained)
    assert [row["epoch"] for row in record["history"]] == [0, 1, 2]
    before, after = start.state_dict(), trained.state_dict()
    assert before.keys() == after.keys()
    weights = [key for key, value in before.items() if value.dim() == 4 and len(value) > 1]
    assert record["history"][0]["val_ssim"] != record["history"][2]["val_ssim"]
    moved = [key for key in weights if not torch.equal(before[key], after[key])]
    assert len(moved) == (len(weights) if record["metrics"]["best_epoch"] > 0 else 0)


def test_what_is_kept_is_the_network_that_was_validated(controls):
    plan, context = controls
    record = StageStore(context.storage).record(folder_of(plan, context, "fp32-finetuned", "evaluate").name)
    tuned = StageStore(context.storage).record(folder_of(plan, context, "fp32-finetuned", "finetune_float").name)
    assert record["metrics"]["val_ssim"] == pytest.approx(tuned["metrics"]["val_ssim"], abs=1e-5)


def test_without_a_step_it_is_the_float_network(tmp_path_factory):
    plan, context = computed(tmp_path_factory, f"{RATE}=0")
    name = "fp32-finetuned"
    trained, start = (network_of(plan, context, name, stage) for stage in ("finetune_float", "equalize"))
    assert all(torch.equal(value, start.state_dict()[key]) for key, value in trained.state_dict().items())


def test_its_row_is_one_of_a_float_network_without_a_latency(tmp_path, tmp_path_factory):
    plan = world(tmp_path_factory).plan(space_of(tmp_path, "{method: [qat]}", "finetuned_baseline: true"))
    store = StageStore(tmp_path)
    figures = dict.fromkeys(("mse", "ssim", "abs_rel", "rmse_m", "delta1"), 0.5)
    control = next(cell for cell in plan.cells if cell.name == "fp32-finetuned")
    for node in plan.nodes:
        if node.id in control.nodes.values():
            put(store, node, figures)
    row = next(row for row in result_rows(plan, store, {}) if row["cell"] == "fp32-finetuned")
    assert (row["method"], row["granularity"], row["engine"], row["status"]) == ("fp32", None, None, "ok")
    assert row["fuse_bn"] is True
    assert row["train_s"] == 1.0
    assert "latency_ratio" not in row
