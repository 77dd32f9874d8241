"""A network with branches in a grid: merged before all else, and the cells' float network."""

import pytest
import torch
from torch import nn

from grid.planning.plan import make_plan
from grid.results.comparisons.roots import root_names
from grid.results.rows import result_rows
from grid.stages import float_network
from grid.stages.run import run_node
from grid.stages.work import StageError
from grid.storage.result_store import StageStore
from model.network.spec import NetworkSpec
from model.network.user_network import register_network
from quant.artifact import load_network, read_form
from tests.grid.tiny import SIZE, space_of, unmeasured

NETWORK = """
from torch import nn

class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.wide = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.narrow = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.act, self.head = nn.ReLU(), nn.Conv2d(8, 1, 1)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.act(self.wide(x) + self.narrow(x) + x))

def build(input_size):
    return Branches()
"""


@pytest.fixture(scope="module")
def branched(tiny, tmp_path_factory):
    """The plan of a network with branches, merged and not, and a store with all but its latencies."""
    folder = tmp_path_factory.mktemp("branches")
    file = folder / "with_branches.py"
    file.write_text(NETWORK)
    spec = NetworkSpec(register_network(file), SIZE)
    more = (f"network.encoder={spec.encoder}", "equalize=false", "bias_correction=false")
    axes = "{merge_branches: [true, false], method: [ptq, qat], rounding: [false]}"
    plan = unmeasured(make_plan(space_of(folder, axes, "", more), None, tiny.fingerprint, None, {spec}))
    context = tiny.context(folder)
    for node in plan.nodes:
        run_node(node, context)
    return plan, context


def convolutions(network: nn.Module) -> int:
    return sum(isinstance(module, nn.Conv2d | torch.ao.nn.quantized.Conv2d) for module in network.modules())


def test_every_network_behind_the_merging_has_fewer_convolutions(branched):
    plan, context = branched
    store = StageStore(context.storage)
    for cell in plan.cells:
        merged = bool(cell.settings["merge_branches"])
        for stage in ("fuse", "calibrate", "finetune", "convert"):
            if stage in cell.nodes:
                folder = store.path(cell.nodes[stage])
                assert read_form(folder).merged is merged
                network = load_network(folder)
                assert convolutions(network) == (3 if merged else 4), (cell.name, stage)


def test_the_float_function_is_the_same_and_the_record_says_how_closely(branched):
    plan, context = branched
    store = StageStore(context.storage)
    (node,) = (node for node in plan.nodes if node.stage == "merge")
    assert 0 <= store.record(node.id)["asserted"]["float_change"] <= 1e-5
    ssim = {
        store.record(cell.nodes["evaluate"])["metrics"]["ssim"]
        for cell in plan.cells
        if cell.settings["method"] == "fp32"
    }
    assert max(ssim) - min(ssim) < 1e-5


def test_each_cell_is_compared_with_the_float_network_of_its_own_form(branched):
    plan, context = branched
    rows = result_rows(plan, StageStore(context.storage), {})
    roots = root_names(rows)
    for row in rows:
        setting = f"merge_branches={'on' if row['merge_branches'] else 'off'}"
        assert roots[row["cell"]] == f"fp32-{setting}"
        assert (row["sqnr_db"] is None) == (row["cell"] == f"fp32-{setting}")


def test_a_merging_that_changes_the_function_is_refused(branched, tmp_path, monkeypatch):
    plan, context = branched
    (node,) = (node for node in plan.nodes if node.stage == "merge")
    real = float_network.merge_branches

    def spoilt(network, example):
        merged = real(network, example)
        with torch.no_grad():
            next(merged.parameters()).add_(1e-2)
        return merged

    monkeypatch.setattr(float_network, "merge_branches", spoilt)
    StageStore(context.storage).path(node.id).rename(tmp_path / "away")
    try:
        with pytest.raises(StageError, match="merge changed the float function"):
            run_node(node, context)
    finally:
        (tmp_path / "away").rename(StageStore(context.storage).path(node.id))
