"""Which node may run when: after its inputs, once, and not behind a failed one."""

import random
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher

from grid.scheduling.calls import FileCalls
from grid.scheduling.searcher import IDLE
from tests.grid.scheduling.machine import events_of
from tests.grid.tiny import flip_byte, put


def test_workers_start_before_the_first_stage_and_are_kept_until_one_is_there(machine, plan, store, tmp_path):
    tune = machine(plan, 2)
    searcher = tune.searcher
    searcher.keep_workers(2, FileCalls(tmp_path))
    kept = {name: searcher.suggest(name) for name in ("a", "b")}
    assert [config["node"] for config in kept.values()] == [IDLE, IDLE]
    first = searcher.suggest("load")
    assert first["stage"] == "load"
    assert searcher.suggest("none") is None, "there are two workers, and a stage waits for one"
    searcher.on_trial_start("a")
    assert waiting(kept) == ["a", "b"], "not before both are up"
    searcher.on_trial_start("b")
    assert waiting(kept) == ["b"], "one stage, one worker"
    searcher.on_trial_complete("a")
    searcher.on_trial_start("load")
    put(store, next(node for node in plan.nodes if node.id == first["node"]))
    assert waiting(kept) == ["b"]
    searcher.on_trial_complete("load")
    for name in ("x", "y"):
        assert searcher.suggest(name)["node"] in {node.id for node in plan.nodes}
        assert waiting(kept) == []
    searcher.on_trial_complete("b")
    assert searcher.idle == {}
    assert events_of(tune).times("finished") == Counter([first["node"]])


def test_no_worker_waits_once_nothing_is_left_to_compute(machine, plan, store, tmp_path):
    searcher = machine(plan, 2).searcher
    searcher.keep_workers(2, FileCalls(tmp_path))
    kept = {name: searcher.suggest(name) for name in ("a", "b")}
    assert searcher.suggest("load")["stage"] == "load"
    searcher.on_trial_complete("load", error=True)  # and with it everything behind
    assert searcher.is_done()
    assert waiting(kept) == []


def test_a_stage_that_waits_for_a_machine_which_measures_calls_no_kept_worker(machine, plan, store, tmp_path):
    for node in plan.nodes:
        if node.stage != "profile":
            put(store, node)
    searcher = machine(plan, 2, profilers=1).searcher
    searcher.keep_workers(2, FileCalls(tmp_path))
    kept = {name: searcher.suggest(name) for name in ("a", "b")}
    for name in kept:
        searcher.on_trial_start(name)
    assert searcher.suggest("one")["resources"] == {"profiler": 1.0}
    searcher.on_trial_start("one")
    assert searcher.suggest("two")["stage"] == "profile"
    assert waiting(kept) == ["a", "b"], "their workers are of no use to it"


@pytest.fixture
def grown(machine, plan, store, tmp_path, monkeypatch):
    """A searcher whose two workers run a stage each when two more cores join."""
    for node in plan.nodes:
        if node.stage in ("load", "fuse", "equalize"):
            put(store, node)
    searcher = machine(plan, 2).searcher
    searcher.keep_workers(2, FileCalls(tmp_path))
    for name in ("a", "b"):
        assert searcher.suggest(name)["node"] == IDLE
    stages = {name: searcher.suggest(name) for name in ("one", "two")}
    for name in ("a", "b"):
        searcher.on_trial_start(name)
    for free, name in zip(("a", "b"), stages, strict=True):
        searcher.on_trial_complete(free)
        searcher.on_trial_start(name)
    monkeypatch.setattr("grid.scheduling.searcher.ray.cluster_resources", lambda: {"CPU": 4.0})
    return searcher, stages


def test_when_a_machine_joins_free_workers_wait_until_its_own_are_up(grown, plan, store):
    searcher, stages = grown
    coming = {name: searcher.suggest(name) for name in ("c", "d")}
    assert [config["node"] for config in coming.values()] == [IDLE, IDLE]
    assert searcher.suggest("none") is None, "two run, two come"
    put(store, next(node for node in plan.nodes if node.id == stages["one"]["node"]))
    searcher.on_trial_complete("one")
    assert searcher.suggest("e")["node"] == IDLE, "a stage would take the worker, and the new one would be stopped"
    searcher.on_trial_start("e")
    searcher.on_trial_start("c")
    searcher.on_trial_start("d")
    assert searcher.suggest("three")["node"] != IDLE
    assert len([name for name in ("c", "d", "e") if not searcher.calls.waits(name)]) == 1, "one stage, one worker"


def test_workers_that_never_come_are_not_waited_for_longer_than_a_start_takes(grown, monkeypatch):
    searcher, _ = grown
    assert [searcher.suggest(name)["node"] for name in ("c", "d")] == [IDLE, IDLE]
    assert searcher.suggest("none") is None
    later = time.monotonic() + 61
    monkeypatch.setattr("grid.scheduling.searcher.time.monotonic", lambda: later)
    assert searcher.suggest("three")["node"] != IDLE


def test_a_worker_that_was_called_and_took_up_waiting_again_is_called_once_more(grown, monkeypatch):
    searcher, _ = grown
    for name in ("c", "d"):
        searcher.suggest(name)
        searcher.on_trial_start(name)
    assert searcher.suggest("three")["node"] != IDLE
    (called,) = [name for name in ("c", "d") if not searcher.calls.waits(name)]
    searcher.on_trial_complete(called)  # its worker is lost with its machine, and "three" still waits for one
    assert sum(map(searcher.calls.waits, searcher.idle)) == 1
    later = time.monotonic() + 3
    monkeypatch.setattr("grid.scheduling.searcher.time.monotonic", lambda: later)
    searcher.suggest("four")
    assert sum(map(searcher.calls.waits, searcher.idle)) == 0


def test_free_workers_wait_as_well_for_one_that_takes_the_place_of_a_dead_one(grown, plan, store, monkeypatch):
    searcher, stages = grown
    monkeypatch.setattr("grid.scheduling.searcher.ray.cluster_resources", lambda: {"CPU": 2.0})
    searcher.on_worker_lost("one")
    assert searcher.suggest("none") is None, "one runs, one comes for the stage that is tried again"
    put(store, next(node for node in plan.nodes if node.id == stages["two"]["node"]))
    searcher.on_trial_complete("two")
    assert searcher.suggest("e")["node"] == IDLE
    searcher.on_trial_start("e")
    searcher.on_trial_start("one")
    assert searcher.suggest("three")["node"] != IDLE


def test_after_a_machine_was_lost_fewer_workers_are_kept(grown, monkeypatch):
    searcher, _ = grown
    monkeypatch.setattr("grid.scheduling.searcher.ray.cluster_resources", lambda: {"CPU": 1.0})
    assert searcher.suggest("three")["node"] != IDLE
    assert searcher.workers == 1


def waiting(kept: dict[str, dict[str, Any]]) -> list[str]:
    return [name for name, config in kept.items() if Path(config["until_gone"]).exists()]


@pytest.mark.parametrize("cpus", [2, 16])
@pytest.mark.parametrize("seed", range(4))
def test_every_node_is_suggested_once_and_never_before_its_inputs_are_stored(machine, plan, store, cpus, seed):
    draw = random.Random(seed)
    tune = machine(plan, cpus)
    while not tune.over:
        tune.fill(most=cpus)
        for config in tune.trials.values():
            node = next(node for node in plan.nodes if node.id == config["node"])
            assert all(store.has(upstream) for _, upstream in node.inputs)
        if tune.trials:
            tune.end(draw.choice(sorted(tune.trials)))
    assert sorted(tune.order) == sorted(node.id for node in plan.nodes)
    assert tune.searcher.failures == {}
    assert events_of(tune).times("finished") == Counter(tune.order)


@pytest.mark.parametrize("cpus", [2, 16])
@pytest.mark.parametrize("seed", range(8))
def test_a_failed_node_fails_all_behind_it_and_nothing_else(machine, plan, store, cpus, seed):
    draw = random.Random(seed)
    doomed = draw.choice(plan.nodes)
    behind = {doomed.id}
    for node in plan.nodes:
        if any(upstream in behind for _, upstream in node.inputs):
            behind.add(node.id)
    tune = machine(plan, cpus)
    while not tune.over:
        tune.fill(most=cpus)
        if tune.trials:
            name = draw.choice(sorted(tune.trials))
            if tune.trials[name]["node"] == doomed.id:
                tune.searcher.reasons[doomed.id] = "stage: it broke"
                tune.end(name, fail=True)
            else:
                tune.end(name)
    assert set(tune.searcher.failures) == behind
    reasons = dict(tune.searcher.failures)
    assert reasons.pop(doomed.id) == "stage: it broke"
    assert all(
        re.fullmatch(rf"needs {doomed.stage} of .+, which failed: stage: it broke", one) for one in reasons.values()
    )
    assert events_of(tune).reasons == dict.fromkeys(behind, "stage: it broke")
    assert events_of(tune).own == {doomed.id}
    assert {node.id for node in plan.nodes if store.has(node.id)} == {node.id for node in plan.nodes} - behind
    assert not behind - {doomed.id} & set(tune.order)
    assert events_of(tune).times("failed") == Counter(behind)


def test_nodes_in_the_store_do_not_run_again(machine, plan, store):
    for node in plan.nodes[:7]:
        put(store, node)
    tune = machine(plan, 16)
    while not tune.over:
        tune.fill()
        if tune.trials:
            tune.end(min(tune.trials))
    assert sorted(tune.order) == sorted(node.id for node in plan.nodes[7:])


def test_a_damaged_result_runs_again(machine, plan, store):
    for node in plan.nodes:
        put(store, node)
    flip_byte(store.path(plan.nodes[0].id) / "network.bin")
    tune = machine(plan)
    tune.fill()
    assert tune.order == [plan.nodes[0].id]


def test_a_whole_store_is_finished_at_once(machine, plan, store):
    for node in plan.nodes:
        put(store, node)
    tune = machine(plan)
    assert tune.searcher.is_done()
    assert tune.searcher.suggest("trial") == Searcher.FINISHED


def test_while_all_that_is_left_waits_nothing_is_suggested_and_it_is_not_the_end(machine, plan):
    tune = machine(plan)
    tune.fill()
    assert tune.stages() == ["load"]
    assert tune.searcher.suggest("other") is None
    assert not tune.searcher.is_done()


@pytest.mark.parametrize("cpus", [2, 16])
def test_an_input_that_is_lost_while_the_grid_runs_fails_what_needs_it_instead_of_waiting_for_ever(
    machine, plan, store, cpus
):
    tune = machine(plan, cpus)
    tune.fill()
    load = tune.node(min(tune.trials))
    tune.end(min(tune.trials))
    tune.fill(most=1)
    flip_byte(store.path(load.id) / "network.bin")
    assert not store.verify(load.id), "as the stage says that finds it"
    for _ in plan.nodes:
        if tune.trials:
            tune.end(min(tune.trials), fail=True)
        tune.fill(most=1)
    assert tune.over, "the searcher waits for an input that nobody will compute"
    assert set(tune.searcher.failures) == {node.id for node in plan.nodes} - {load.id}
    assert any("is no longer in the store" in reason for reason in tune.searcher.failures.values())


def test_a_worker_that_died_without_a_word_is_the_reason_then(machine, plan):
    tune = machine(plan)
    tune.fill()
    tune.end(min(tune.trials), fail=True)
    assert set(events_of(tune).reasons.values()) == {"load: its worker died"}


def test_a_trial_that_another_run_has_finished_meanwhile_counts(machine, plan, store):
    tune = machine(plan)
    tune.fill()
    name = min(tune.trials)
    put(store, tune.node(name))
    tune.searcher.on_trial_complete(name, error=True)
    assert tune.searcher.failures == {}


pytestmark = pytest.mark.timeout(300)
