"""The round stage in a grid: where it stands in the plan, and what it leaves."""

import pytest

from grid.planning.plan import Plan, make_plan
from grid.space.search_space import load_space
from grid.stages.run import run_node
from grid.storage.result_store import StageStore
from quant.artifact import load_network
from quant.prepare import quant_convs
from quant.state import require_state
from quant.weight_rounding.off_grid import load_off_grid
from tests.grid.tiny import space_of, world


def full(*overrides: str) -> Plan:
    return make_plan(load_space("full", ["rounding=true", *overrides]), "sha", "data")


def chain_of(plan: Plan, method: str) -> list[str]:
    return next(list(cell.nodes) for cell in plan.cells if cell.settings["method"] == method)


@pytest.mark.parametrize("method", ["ptq", "ptq+qat"])
def test_rounding_follows_calibration_and_is_nowhere_where_it_is_off(method):
    stages = chain_of(full(), method)
    assert stages[stages.index("calibrate") + 1] == "round"
    assert "round" not in chain_of(full("rounding=false"), method)


@pytest.mark.parametrize("method", ["fp32", "qat"])
def test_a_method_without_calibration_ignores_rounding(method):
    learned, nearest = (
        {cell.key: cell for cell in plan.cells if cell.settings["method"] == method}
        for plan in (full(), full("rounding=false"))
    )
    assert learned.keys() == nearest.keys()
    assert not any("round" in cell.nodes for cell in learned.values())
    assert not any(key.startswith("rounding") for cell in learned.values() for key in cell.relevant)


@pytest.mark.parametrize("override", ["rounding.images=3", "rounding.places=99", "calibrate.images=9", "seed=9"])
def test_what_rounding_reads_changes_it(override):
    plans = (full("equalize=false"), full("equalize=false", override))
    before, after = ({node.id for node in plan.nodes if node.stage == "round"} for plan in plans)
    assert len(before) == len(after) == 4
    assert not before & after


def test_rounding_on_and_off_are_cells_of_one_grid_with_names_that_tell_them_apart(tmp_path):
    plan = make_plan(space_of(tmp_path, "{rounding: [false, true]}"), "sha", "data")
    chains = {cell.name: "round" in cell.nodes for cell in plan.cells if "convert" in cell.nodes}
    assert chains == {"per_channel-ptq-rounding=off": False, "per_channel-ptq-rounding=on": True}


def test_it_leaves_a_network_on_its_grid_and_the_error_of_every_layer(tmp_path, tmp_path_factory):
    tiny = world(tmp_path_factory)
    more = ("equalize=false", "rounding.images=3", "rounding.places=256")
    plan = tiny.plan(
        space_of(tmp_path, "{granularity: [per_tensor], method: [ptq+qat], rounding: [true]}", overrides=more)
    )
    context = tiny.context(tmp_path)
    records = {}
    for node in plan.nodes:
        if node.stage in ("load", "calibrate", "round", "correct_bias", "finetune"):
            records[node.stage] = run_node(node, context)
    network = load_network(StageStore(tmp_path).path(records["round"]["id"]))
    require_state(network, "evaluate")
    layers = {layer["name"]: layer for layer in records["round"]["metrics"]["layers"]}
    assert layers.keys() == quant_convs(network).keys()
    for name, conv in quant_convs(network).items():
        weight = conv.folded()[0].detach()
        assert (conv.weight_quantizer(weight) - weight).abs().max() <= 1e-4 * conv.weight_quantizer.scale.max(), name
    assert sum(layer["error_after"] < layer["error_before"] for layer in layers.values()) > 0.9 * len(layers)
    asserted = records["round"]["asserted"]
    assert len(asserted["images"]) == 3
    assert set(asserted["images"]) < set(records["calibrate"]["asserted"]["images"])
    assert load_off_grid(StageStore(tmp_path).path(records["round"]["id"])).keys() == layers.keys()
    tuned = records["finetune"]["metrics"]
    assert tuned["best_epoch"] == 0 or tuned["weights_changed"] > 0
