"""Weights of fewer bits in a grid: the widths reach every stage, the network that ships, and the row."""

import pytest

from grid.results.ranking import axes_of
from grid.results.rows import result_rows
from grid.stages.run import run_node
from grid.storage.result_store import StageStore
from quant.artifact import load_prepared, read_form
from quant.prepare import quant_convs
from tests.grid.tiny import space_of

AXES = "{weight_bits: [8, 4], method: [ptq, qat], rounding: [false], keep_8bit.worst: [2]}"
LOOKS = ("evaluate", "profile")


@pytest.fixture(scope="module")
def narrow(tiny, tmp_path_factory):
    """The plan of four cells, and a store with the networks of those of 4 bits."""
    folder = tmp_path_factory.mktemp("widths")
    more = ("bias_correction=false", "keep_8bit.images=1", "qat.images_per_epoch=2")
    plan, context = tiny.plan(space_of(folder, AXES, "baselines: false", more)), tiny.context(folder)
    wanted = {cell.key for cell in plan.cells if cell.settings["weight_bits"] == 4}
    for node in plan.nodes:
        if node.stage not in LOOKS and wanted & set(node.cells):
            run_node(node, context)
    return plan, StageStore(folder)


def test_every_network_behind_the_choice_has_the_widths_that_the_record_lists(narrow):
    plan, store = narrow
    for cell in (cell for cell in plan.cells if cell.settings["weight_bits"] == 4):
        widths = store.record(cell.nodes["widths"])["metrics"]["weight_bits"]
        simulated = load_prepared(store.path(cell.nodes["finetune" if "finetune" in cell.nodes else "calibrate"]))
        assert {name: conv.weight_quantizer.bits for name, conv in quant_convs(simulated).items()} == widths
        first, *_, last = quant_convs(simulated)
        assert widths[first] == widths[last] == 8
        assert sorted(widths.values()) == [4] * (len(widths) - 4) + [8] * 4, "both ends, and the two worst"
        for stage in ("widths", "equalize", "convert"):
            assert read_form(store.path(cell.nodes[stage])).weight_bits == widths
        assert list(store.path(cell.nodes["convert"]).glob("*.packed.safetensors"))


def test_the_row_shows_the_width_as_an_axis_and_the_layers_that_keep_eight_bits(narrow):
    plan, store = narrow
    rows = {row["cell"]: row for row in result_rows(plan, store, {})}
    assert set(rows) == {f"per_channel-{method}-weight_bits={bits}" for method in ("ptq", "qat") for bits in (8, 4)}
    assert "weight_bits" in axes_of(list(rows.values()))
    for method in ("ptq", "qat"):
        eight, four = (rows[f"per_channel-{method}-weight_bits={bits}"] for bits in (8, 4))
        assert (eight["weight_bits"], four["weight_bits"]) == (8, 4)
        assert len(four["kept_8bit"].split()) == 4
        assert not eight.get("kept_8bit")
