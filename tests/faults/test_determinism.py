"""Same seed, same machine, same result: every figure and every file, in any order and with any number of workers."""

import itertools
import multiprocessing
import random
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
import torch

from grid.planning.plan import Plan
from grid.stages.run import run_node
from grid.storage.result_store import StageStore
from tests.grid.tiny import space_of, unmeasured, world

AXES = "{method: [ptq, qat, ptq+qat]}"
COMPARED = ("metrics", "asserted", "history", "files", "settings", "inputs")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    space = space_of(tmp_path_factory.mktemp("space"), AXES, overrides=("train.init=random",))
    return unmeasured(world(tmp_path_factory).plan(space, trained=True))


@pytest.fixture(scope="module")
def in_plan_order(plan, tmp_path_factory) -> dict[str, dict[str, Any]]:
    context = world(tmp_path_factory).context(tmp_path_factory.mktemp("plan-order"))
    for node in plan.nodes:
        run_node(node, context)
    return records(plan, context.storage)


def records(plan: Plan, storage: Path) -> dict[str, dict[str, Any]]:
    store = StageStore(storage)
    return {node.id: {key: store.record(node.id)[key] for key in COMPARED} for node in plan.nodes}


def test_another_order_and_number_of_workers_give_the_same_figures_and_files(
    plan, in_plan_order, tmp_path, tmp_path_factory
):
    context, threads = world(tmp_path_factory).context(tmp_path), torch.get_num_threads()
    left, running, draw = {node.id: node for node in plan.nodes}, {}, random.Random(1)
    most, begun = 0, []
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        while left or running:
            waiting = left.keys() | {node.id for node in running.values()}
            ready = [node for node in left.values() if waiting.isdisjoint(one for _, one in node.inputs)]
            for node in draw.sample(ready, len(ready)):
                running[pool.submit(run_node, left.pop(node.id), context)] = node
                begun.append(node)
            most = max(most, len(running))
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                done.result()
                del running[done]
    assert most >= 2
    assert begun != list(plan.nodes)
    assert_equal(records(plan, tmp_path), in_plan_order)


def assert_equal(found: dict[str, dict[str, Any]], expected: dict[str, dict[str, Any]]) -> None:
    for (node, record), key in itertools.product(found.items(), COMPARED):
        assert record[key] == expected[node][key], (node, key)
