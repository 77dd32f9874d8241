"""Which cells a device has, what they share with those of this machine, and what stays out."""

import pytest

from grid.planning.plan import make_plan
from grid.space.search_space import load_space

pytest.importorskip("onnxruntime")


def planned(*overrides):
    return make_plan(load_space("engines", ("engine=[qnnpack, onnxruntime]", *overrides)), "sha", "data")


def test_a_cell_of_a_device_shares_all_but_its_latency():
    plan = planned("device=[local, pi]")
    cells = {cell.name: cell for cell in plan.cells}
    here = cells["fuse_bn-per_channel-ptq-engine=onnxruntime"]
    there = cells["fuse_bn-per_channel-ptq-engine=onnxruntime-device=pi"]
    assert set(here.nodes) - set(there.nodes) == {"profile"}
    assert set(there.nodes) - set(here.nodes) == {"profile_on_device"}
    assert all(here.nodes[stage] == there.nodes[stage] for stage in set(here.nodes) & set(there.nodes))


def test_a_device_changes_no_id_of_this_machines_cells():
    alone, both = planned(), planned("device=[local, pi]")
    assert {cell.key for cell in alone.cells} < {cell.key for cell in both.cells}
    assert {node.id for node in alone.nodes} < {node.id for node in both.nodes}


def test_a_network_is_timed_there_beside_the_float_files_of_its_engine_and_of_the_reference():
    plan = planned("device=pi", "device_reference=onnxruntime")
    nodes = {node.id: node for node in plan.nodes}
    floats = next(cell for cell in plan.cells if cell.name == "fp32-fuse_bn-engine=onnxruntime")
    for cell in plan.cells:
        if "profile_on_device" in cell.nodes:
            inputs = dict(nodes[cell.nodes["profile_on_device"]].inputs)
            assert inputs["float"] == inputs["reference"] == floats.nodes["convert"]
            assert inputs["network"] == cell.nodes["convert"]


def test_pytorchs_own_networks_stay_on_this_machine_and_its_int8_ones_are_excluded_there():
    plan = planned("device=pi")
    floats = [cell for cell in plan.cells if cell.relevant["method"] == "fp32" and cell.settings["engine"] == "qnnpack"]
    assert {cell.settings["device"] for cell in floats} == {"local"}
    assert {cell.settings["engine"] for cell in plan.excluded} == {"qnnpack"}
    assert all("does not run on pi" in str(cell.excluded) for cell in plan.excluded)


def test_another_device_and_other_cores_are_measured_anew():
    first, second = (planned(f"device={label}") for label in ("pi", "pi-cores4-7"))
    ids = [{node.id for node in plan.nodes if node.stage == "profile_on_device"} for plan in (first, second)]
    assert not ids[0] & ids[1]
