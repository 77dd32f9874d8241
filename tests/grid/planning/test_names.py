"""Stages are found by the cells that they serve: in trial names and in the folder of logs."""

import re
from dataclasses import replace

import pytest

from grid.planning.names import cells_of, names_by_key, trial_name, write_failure
from grid.planning.plan import Node, Plan
from tests.grid.tiny import space_of, world

AXES = "{method: [ptq, qat, ptq+qat], fuse_bn: [false, true], qat.travel: [1.0e-4, 1.0e-3]}"


@pytest.fixture
def plan(tmp_path, tmp_path_factory) -> Plan:
    return world(tmp_path_factory).plan(space_of(tmp_path, AXES))


def node_of(plan: Plan, cell: str, stage: str) -> Node:
    wanted = next(one for one in plan.cells if one.name == cell).nodes[stage]
    return next(node for node in plan.nodes if node.id == wanted)


def test_a_stage_of_one_cell_has_its_name_and_a_shared_one_says_how_many_share_it(plan):
    names = names_by_key(plan)
    alone = node_of(plan, "fuse_bn-per_channel-qat-qat.travel=0.0001", "finetune")
    assert cells_of(alone, names) == "fuse_bn-per_channel-qat-qat.travel=0.0001"
    shared = node_of(plan, "fuse_bn-per_channel-qat-qat.travel=0.0001", "fuse")
    assert cells_of(shared, names) == f"{len(shared.cells)}-cells"
    assert len(shared.cells) > 1


def test_trial_names_differ_fit_into_a_file_name_and_hold_nothing_that_a_disk_refuses(plan):
    names = {key: name + "-x=1" * 100 for key, name in names_by_key(plan).items()}
    made = [trial_name(node, names) for node in plan.nodes]
    assert len(set(made)) == len(plan.nodes)
    assert all(re.fullmatch(r"[\w.=+-]{1,110}", name) for name in made)
    for node, name in zip(plan.nodes, made, strict=True):
        assert name.startswith(f"{node.stage}-")
        assert name.endswith(f"-{node.id[:8]}")


def test_a_failure_is_in_the_folder_of_its_cell_and_the_reason_of_a_shared_one_lists_all(plan, tmp_path):
    names = names_by_key(plan)
    alone = node_of(plan, "per_channel-ptq+qat-qat.travel=0.001", "finetune")
    log = write_failure(tmp_path, alone, names, "Traceback: it broke")
    assert log == tmp_path / "logs" / "per_channel-ptq+qat-qat.travel=0.001" / f"finetune-{alone.id}.log"
    assert log.read_text().endswith("\n\nTraceback: it broke")
    shared = node_of(plan, "fuse_bn-per_channel-ptq", "equalize")
    log = write_failure(tmp_path, shared, names, "Traceback: it broke")
    assert log == tmp_path / "logs" / "shared" / f"equalize-{shared.id}.log"
    first = log.read_text().splitlines()[0]
    assert {names[key] for key in shared.cells} == set(first.partition(" of ")[2].split(", "))


def test_the_log_of_a_cell_with_a_name_longer_than_file_names_may_be_is_written(plan, tmp_path):
    alone = replace(plan.nodes[0], cells=("key",))
    assert write_failure(tmp_path, alone, {"key": "x" * 1000}, "Traceback").exists()
