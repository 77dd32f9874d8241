"""Inputs that are not square and targets of any kind of numbers go the whole way from a file to an engine."""

from pathlib import Path

import pytest
import torch

from model.data.pack import Pack, PackSpec
from model.data.task_pack import prepare_data
from model.network.build import build_network
from model.tasks.load import load_task
from model.tasks.networks import network_for
from model.tasks.task import image_figures
from model.tasks.trial import try_task
from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.engines.catalog import missing
from quant.engines.exported import ExportedNetwork, export, file_name
from quant.recipe import CalibrateSpec
from quant.tracing.trace import fuse_bn

WIDE = """
import torch
from torch import nn
from torch.utils.data import TensorDataset
from torchmetrics import MeanSquaredError


def datasets(data):
    images = torch.randint(256, (8, 3, 48, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    items = TensorDataset(images, images.float().mean((1, 2))[:, ::4] / 255)
    return {"train": items, "val": items, "test": items}


class Columns(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.last = nn.Conv2d(8, 1, (12, 1))

    def forward(self, images):
        return self.last(self.second(self.first(images))).flatten(1)


def build(input_size):
    assert input_size == (48, 64)
    return Columns()


def loss(outputs, targets):
    return nn.functional.mse_loss(outputs, targets)


def metrics():
    return {"mse": MeanSquaredError()}
"""


@pytest.mark.parametrize("engine", ["qnnpack", "onnxruntime", "xnnpack"])
def test_inputs_that_are_not_square_go_the_whole_way(tmp_path, engine):
    if engine != "qnnpack" and (reason := missing(engine)):
        pytest.skip(reason)
    file = tmp_path / "wide.py"
    file.write_text(WIDE)
    pack = Pack(prepare_data(str(file), "rooms", tmp_path, PackSpec()))
    spec = network_for(pack, str(file), None)
    assert (spec.shape, spec.inputs, spec.input_size) == ((3, 48, 64), "3x48x64", 64)
    torch.manual_seed(0)
    network, images = build_network(spec), pack.images("train").float() / 255
    try_task(load_task(pack.task, file), file, network, pack)
    network = fuse_bn(network.eval(), images[:1])
    prepared = calibrate(network, "per_channel", CalibrateSpec(activation_range="minmax"), images)
    if engine == "qnnpack":
        int8 = qnnpack.convert(prepared)
    else:
        export(prepared, engine, images[:1], tmp_path / file_name(engine))
        int8 = ExportedNetwork(engine, tmp_path / file_name(engine))
    with torch.no_grad():
        exact, found = network(images), int8(images)
    assert found.shape == exact.shape == (8, 16)
    assert float((found - exact).square().mean()) < 0.02 * float(exact.var())


def test_a_task_of_ones_own_may_give_targets_of_any_kind_of_numbers(tmp_path):
    text = WIDE.replace("images.float().mean((1, 2))[:, ::4] / 255", "torch.arange(8).to(torch.KIND)")
    found = {}
    for kind in ("bool", "uint8", "uint16", "int32", "int64", "float16", "float64"):
        file = tmp_path / f"of_{kind}.py"
        file.write_text(text.replace("KIND", kind))
        targets = Pack(prepare_data(str(file), "rooms", tmp_path, PackSpec())).targets("val")
        assert targets.tolist() == ([0] + [1] * 7 if kind == "bool" else list(range(8)))
        found[kind] = str(targets.dtype).removeprefix("torch.")
    expected = {"bool": "uint8", "uint16": "int64", "float16": "float32", "float64": "float32"}
    assert found == {kind: expected.get(kind, kind) for kind in found}


def test_the_example_of_keypoints_learns_two_outputs_by_name(tmp_path):
    file = Path(__file__).parents[3] / "docs" / "examples" / "keypoints.py"
    spec = PackSpec(input_size=64, rooms_train=8, rooms_val=1, rooms_test=1)
    pack = Pack(prepare_data(str(file), "rooms", tmp_path, spec))
    targets = pack.targets("train")
    assert {name: list(one.shape) for name, one in targets.items()} == {"heat": [8, 3, 16, 16], "here": [8, 3]}
    assert torch.equal(targets["heat"].amax((2, 3)), targets["here"]), "a peak of 1 where a thing is"
    assert targets["here"].sum() > 3
    task, network = load_task(pack.task, file), build_network(network_for(pack, str(file), None))
    try_task(task, file, network, pack)
    perfect = image_figures(task, targets, targets)["near"]
    assert torch.equal(perfect.isnan(), targets["here"].sum(1) == 0)
    assert (perfect[~perfect.isnan()] == 1).all()
    moved = {**targets, "heat": targets["heat"].roll(4, 3)}
    assert image_figures(task, moved, targets)["near"].nansum() == 0
