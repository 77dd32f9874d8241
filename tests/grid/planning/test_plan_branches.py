"""Merging branches in a plan: a stage of the networks that have any, and of no other."""

import pytest

from grid.planning.plan import Plan, make_plan
from model.network.spec import NetworkSpec

BRANCHED = NetworkSpec("timm/branched")
TWO = "axes: {network.encoder: [efficientnet_b0, timm/branched], method: [ptq, ptq+qat]}"


@pytest.fixture
def plan(space_of):
    def made(text: str, branched: bool = True, checkpoint: str | None = None) -> Plan:
        return make_plan(space_of(text), checkpoint, "data", None, {BRANCHED} if branched else ())

    return made


def ids(made: Plan) -> dict[str, dict[str, str]]:
    return {cell.name: cell.nodes for cell in made.cells}


@pytest.mark.parametrize("setting", ["true", "false"])
def test_cells_of_networks_without_branches_are_as_if_there_were_no_such_setting(plan, setting):
    with_it, without = plan(f"{TWO}\nsettings: {{merge_branches: {setting}}}"), plan(TWO, branched=False)
    for name, nodes in ids(without).items():
        if "efficientnet" in name:
            assert ids(with_it)[name] == nodes
    keys = {cell.name: cell.key for cell in with_it.cells}
    assert all(keys[cell.name] == cell.key for cell in without.cells if "efficientnet" in cell.name)
    assert not [cell for cell in without.cells if "merge_branches" in cell.relevant]


def test_as_an_axis_it_repeats_cells_of_networks_without_branches(plan):
    made = plan(f"{TWO[:-1]}, merge_branches: [true, false]}}")
    single = plan(TWO)
    assert made.repeats == sum("efficientnet" in cell.name for cell in single.cells)
    assert {name for name in ids(made) if "efficientnet" in name} == {n for n in ids(single) if "efficientnet" in n}


def test_the_merged_network_is_what_all_else_starts_from(plan):
    made = plan("axes: {network.encoder: [timm/branched], fuse_bn: [false, true], method: [ptq+qat]}")
    nodes = {node.id: node for node in made.nodes}
    for cell in made.cells:
        stages = list(cell.nodes)
        assert stages[:2] == ["train", "merge"]
        merged = cell.nodes["merge"]
        assert nodes[merged].inputs == (("network", cell.nodes["train"]),)
        assert nodes[cell.nodes[stages[2]]].inputs[0] == ("network", merged)
        assert ("reference", merged) in nodes[cell.nodes["profile"]].inputs
        if "finetune" in cell.nodes:
            assert ("teacher", merged) in nodes[cell.nodes["finetune"]].inputs


def test_a_loaded_network_is_merged_too(plan):
    made = plan("axes: {network.encoder: [timm/branched], method: [ptq]}", checkpoint="sha")
    assert {tuple(cell.nodes)[:2] for cell in made.cells} == {("load", "merge")}


def test_merged_and_unmerged_cells_have_their_own_float_networks_and_one_training(plan):
    made = plan("axes: {network.encoder: [timm/branched], merge_branches: [true, false], method: [ptq]}")
    by_setting = {
        value: [cell for cell in made.cells if cell.relevant["merge_branches"] is value] for value in (True, False)
    }
    assert len({cell.nodes["train"] for cell in made.cells}) == 1
    for value, cells in by_setting.items():
        assert [cell.settings["method"] for cell in cells] == ["fp32", "fp32", "ptq"]
        assert all(("merge" in cell.nodes) is value for cell in cells)
        assert all(f"merge_branches={('off', 'on')[value]}" in cell.name for cell in cells)


def test_exclusions_know_it_where_it_means_something(plan):
    text = f"{TWO}\nsettings: {{merge_branches: false}}\nexclude: [{{when: {{merge_branches: false}}, reason: slow}}]"
    made = plan(text)
    assert {cell.settings["network.encoder"] for cell in made.excluded} == {"timm/branched"}
    assert {cell.settings["network.encoder"] for cell in made.cells} == {"efficientnet_b0"}
