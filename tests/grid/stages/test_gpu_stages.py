"""Every stage that may hold a GPU runs on another device than the CPU's, mixes the two nowhere, and gives the same."""

import dataclasses
import shutil

import pytest
import torch

from grid.planning.stage import GPU
from grid.stages.run import run_node
from grid.storage.result_store import StageStore
from model.data.pack import Pack
from model.images import normalize
from quant.artifact import load_network
from tests.grid.tiny import World, space_of, unmeasured
from tests.pretended_gpu import DEVICE, OnDevice, pretended_gpu

OVERRIDES = ("train.init=random", "train.images_per_epoch=4", "equalize.objective=noise")
GPU_STAGES = {"train", "equalize", "calibrate", "round", "correct_bias", "finetune", "finetune_float"}
AXES = "{method: [ptq+qat], fuse_bn: [false], granularity: [per_tensor]}"


@pytest.mark.slow
def test_every_stage_of_a_gpu_gives_there_what_it_gives_on_the_cpu(tiny: World, tmp_path):
    space = space_of(tmp_path, AXES, "finetuned_baseline: true", OVERRIDES)
    plan, context = unmeasured(tiny.plan(space, trained=True)), tiny.context(tmp_path / "cpu")
    on_gpu = [node for node in plan.nodes if node.device == GPU]
    assert {node.stage for node in on_gpu} == GPU_STAGES
    for node in plan.nodes:
        if node.stage not in ("convert", "evaluate"):
            run_node(node, context)
    shutil.copytree(tmp_path / "cpu/stages", tmp_path / "gpu/stages")
    images = normalize(Pack(tiny.pack).images("test"))
    there = dataclasses.replace(context, storage=tmp_path / "gpu", device=str(DEVICE))
    for node in on_gpu:
        shutil.rmtree(tmp_path / "gpu/stages" / node.id)
        with pretended_gpu():
            run_node(node, there)
        stores = [StageStore(context.storage), StageStore(there.storage)]
        expected, found = (store.record(node.id) for store in stores)
        if expected["history"]:  # steps go apart as floats do
            losses = [
                [row["train_loss"] for row in record["history"] if "train_loss" in row] for record in (expected, found)
            ]
            assert losses[1] == pytest.approx(losses[0], rel=0.02)
        else:
            networks = [load_network(store.path(node.id)).eval() for store in stores]
            expected_depth, depth = (network(images).detach() for network in networks)
            assert (depth - expected_depth).abs().mean() < 0.05 * expected_depth.std(), node.stage


def test_the_pretended_gpu_refuses_to_mix_devices():
    with pretended_gpu():
        moved = torch.arange(6.0).to(DEVICE)
        assert isinstance(moved * 2.0, OnDevice)
        assert (moved * torch.tensor(2.0)).sum().item() == 30.0, "as on a GPU a number of the CPU may take part"
        assert torch.equal((moved + torch.ones(6, device=DEVICE)).cpu(), torch.arange(1.0, 7.0))
        with pytest.raises(RuntimeError, match="two devices"):
            moved + torch.ones(6)
