"""Times are estimated from what was measured, by the pictures of a stage, and over cores that share the work."""

import pytest

from grid.planning.plan import Node, Plan
from grid.planning.stage_table import stage_named
from grid.run.costs import Costs
from grid.storage.result_store import StageStore
from model.progress import duration
from tests.grid.tiny import put


def node(stage: str, name: str = "", inputs: tuple[str, ...] = (), **settings) -> Node:
    dotted = {key.replace("__", "."): value for key, value in settings.items()}
    wired = tuple(("network", one.ljust(20, "0")) for one in inputs)
    return Node((name or stage).ljust(20, "0"), stage, dotted, wired, (), stage_named(stage).function)


@pytest.fixture
def store(tmp_path) -> StageStore:
    return StageStore(tmp_path / "storage")


def test_a_stage_that_was_never_measured_takes_what_the_stage_table_says(store):
    assert Costs(store, 0).seconds(node("profile")) == stage_named("profile").seconds


def test_a_measurement_that_stages_share_is_not_a_stage(store):
    put(store, node("evaluate", "aa"), seconds=50.0, stage="shared evaluate")
    put(store, node("evaluate", "bb"), seconds=20.0)
    assert Costs(store, 0).seconds(node("evaluate")) == 20.0


def test_the_median_rate_of_the_stage_counts_times_its_pictures(store):
    for number, seconds in enumerate((10.0, 20.0, 900.0)):
        put(store, node("finetune", f"aa{number}", qat__epochs=2, qat__images_per_epoch=50), seconds=seconds)
    costs = Costs(store, train_images=400)
    assert costs.seconds(node("finetune", qat__epochs=1, qat__images_per_epoch=10)) == pytest.approx(0.2 * 10)
    assert costs.seconds(node("finetune", qat__epochs=3, qat__images_per_epoch=0)) == pytest.approx(0.2 * 1200)
    assert costs.seconds(node("calibrate", calibrate__images=10)) == pytest.approx(
        10 * stage_named("calibrate").seconds
    )


def test_a_stage_that_has_just_ended_counts(store):
    costs, done = Costs(store, 0), node("equalize", "aa")
    put(store, done, seconds=7.0)
    costs.learn(done)
    assert costs.seconds(node("equalize")) == 7.0


def test_stages_share_the_cores_but_no_chain_is_shortened(store):
    for stage, seconds in (("load", 1.0), ("equalize", 10.0), ("evaluate", 4.0)):
        put(store, node(stage, f"ab{stage[:2]}"), seconds=seconds)
    load = node("load", "ac")
    nodes = (load, *(node("equalize", f"ad{n}", ("ac",)) for n in range(4)), node("evaluate", "ae", ("ad0",)))
    plan = Plan((), nodes, (), 0)
    costs, ids = Costs(store, 0), [one.id for one in nodes]
    assert costs.wall_seconds(plan, ids, 1) == pytest.approx(45.0)
    assert costs.wall_seconds(plan, ids, 2) == pytest.approx(22.5)
    assert costs.wall_seconds(plan, ids, 100) == pytest.approx(15.0), "load, equalize, evaluate"
    assert costs.wall_seconds(plan, ids[-1:], 2) == pytest.approx(4.0)
    assert costs.wall_seconds(plan, [], 2) == 0.0


@pytest.mark.parametrize(("seconds", "text"), [(40.4, "40 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text
