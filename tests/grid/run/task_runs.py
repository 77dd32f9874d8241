"""Finished runs of tasks other than depth, with networks so small that they are computed in a moment."""

from dataclasses import dataclass
from pathlib import Path

import runner
from grid.planning.plan import make_plan
from grid.run.files import RunFiles
from grid.run.recorder import run_context
from grid.space.search_space import of_task
from grid.stages.run import run_cell
from grid.stages.work import Context
from grid.storage.copies import kept_copy
from model.data.pack import Pack, PackSpec
from model.data.task_pack import prepare_data
from model.network.user_network import register_network
from model.tasks.networks import network_for
from tests.grid.tiny import SIZE, space_of, unmeasured

AXES = "{method: [ptq], fuse_bn: [true], granularity: [per_channel]}"
ROOMS = PackSpec(input_size=SIZE, rooms_train=6, rooms_val=2, rooms_test=2)
SMALL_NETWORK = """
from torch import nn


def build(input_size, classes):
    layers = [nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))
"""
TWO_HEADS = """
import torch
from torch import nn
from torch.nn import functional
from torchmetrics import MeanAbsoluteError


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.heat, self.size = nn.Conv2d(8, 1, 1), nn.Conv2d(8, 3, 3, stride=2)

    def forward(self, fields):
        found = self.stem(fields)
        return {"size": self.size(found).mean((2, 3)), "heat": self.heat(found)}


def build(input_size):
    return Heads()


def datasets(data):
    fields = torch.randn(12, 2, 16, 24, generator=torch.Generator().manual_seed(0))
    items = [(one, {"size": one.mean((1, 2)).repeat(2)[:3], "heat": one[:1]}) for one in fields]
    return {"train": items[:6], "val": items[6:9], "test": items[9:]}


def loss(outputs, targets):
    return sum(functional.mse_loss(outputs[name], targets[name]) for name in ("size", "heat"))


class HeatError(MeanAbsoluteError):
    def update(self, outputs, targets):
        super().update(outputs["heat"], targets["heat"])


def metrics():
    return {"heat_error": HeatError()}


def postprocess(outputs):
    return outputs["heat"].flatten(1).argmax(1)
"""


@dataclass(frozen=True)
class TaskRun:
    """A storage with a finished run ``shelf``, the data of the run, and a cell of int8."""

    storage: Path
    pack: Pack
    files: RunFiles
    cell: str

    def export(self, *arguments: str) -> int:
        return runner.main(["--storage", str(self.storage), "--export", f"shelf/{self.cell}", *arguments])


def finished(storage: Path, task: str, network: Path) -> TaskRun:
    """Compute the cells of AXES for a task of this name or file, on the rooms or on what its file gives."""
    pack = Pack(prepare_data(task, "rooms", storage / "packs", ROOMS))
    network = kept_copy(network, storage / "networks")
    spec = network_for(pack, task, register_network(network))
    told = (f"network.encoder={spec.encoder}", "equalize=false")
    plan = unmeasured(make_plan(of_task(space_of(storage, AXES, overrides=told), spec), None, pack.fingerprint))
    own = kept_copy(Path(task), storage / "tasks") if task.endswith(".py") else None
    context = Context(storage, pack.path, network=network, task=own)
    for cell in plan.cells:
        run_cell(plan, cell, context)
    files = RunFiles(storage / "runs" / "shelf", plan, run_context(plan, pack, "shelf", ""))
    files.save()
    (name,) = (cell.name for cell in plan.cells if "convert" in cell.nodes)
    return TaskRun(storage, pack, files, name)
