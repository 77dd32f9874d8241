"""Which node may run when, and a tiny grid that really runs on Ray: every stage once, on cores of its own."""

import itertools
import json
import os
import random
import re
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher

from grid.planning.plan import Node, Plan
from grid.scheduling import profiler
from grid.scheduling import tune as schedule
from grid.scheduling.cores import own_cores
from grid.scheduling.outcome import RunOutcome
from grid.scheduling.searcher import IDLE
from grid.scheduling.tune import Dashboard, Resources, TrieSearcher, run_plan
from grid.storage.result_store import StageStore
from model.errors import InputError
from tests.grid import tiny
from tests.grid.tiny import flip_byte, put, sightings, space_of, world, written

FULL = "{method: [ptq, qat, ptq+qat], granularity: [per_channel, per_tensor], fuse_bn: [false, true]}"


@dataclass
class Events:
    """A listener that remembers."""

    seen: list[tuple[str, str]] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    own: set[str] = field(default_factory=set)
    reasons_again: dict[str, str] = field(default_factory=dict)
    news: list[dict[str, Any]] = field(default_factory=list)

    def started(self, node: Node) -> None:
        self.seen.append(("started", node.id))

    def progressed(self, node: Node, info: dict[str, Any]) -> None:
        self.news.append(info)

    def finished(self, node: Node) -> None:
        self.seen.append(("finished", node.id))

    def retried(self, node: Node, reason: str) -> None:
        self.seen.append(("retried", node.id))
        self.reasons_again[node.id] = reason

    def failed(self, node: Node, reason: str, inherited: bool) -> None:
        self.seen.append(("failed", node.id))
        self.reasons[node.id] = reason
        self.own |= {node.id} if not inherited else set()

    def times(self, kind: str) -> Counter:
        return Counter(node for what, node in self.seen if what == kind)


@dataclass
class Machine:
    """Plays Tune: starts what the searcher suggests on so many cores, and lets trials end in any order."""

    searcher: TrieSearcher
    plan: Plan
    store: StageStore
    cpus: float
    numbers: Any = field(default_factory=itertools.count)
    trials: dict[str, dict[str, Any]] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    over: bool = False

    def fill(self, most: int | None = None) -> None:
        """Ask for trials while the cores last (as many as ``most``, where given)."""
        while not self.over and (most is None or len(self.trials) < most):
            name = f"trial{next(self.numbers)}"
            found = self.searcher.suggest(name)
            self.over = found == Searcher.FINISHED
            if not isinstance(found, dict):
                return
            self.trials[name] = found
            self.order.append(found["node"])

    def node(self, name: str) -> Node:
        return next(node for node in self.plan.nodes if node.id == self.trials[name]["node"])

    def end(self, name: str, fail: bool = False) -> None:
        """One trial ends, with its result in the store or without."""
        node = self.node(name)
        if not fail:
            put(self.store, node)
        del self.trials[name]
        self.searcher.on_trial_complete(name, error=fail)

    def stages(self) -> list[str]:
        return sorted(config["stage"] for config in self.trials.values())


@pytest.fixture
def store(tmp_path) -> StageStore:
    return StageStore(tmp_path / "storage")


@pytest.fixture
def plan(tmp_path, tmp_path_factory) -> Plan:
    return world(tmp_path_factory).plan(space_of(tmp_path, FULL))


@pytest.fixture
def machine(store, monkeypatch) -> Callable[..., Machine]:
    """Makes a machine with a searcher, without Ray."""

    def make(plan: Plan, cpus: float = 2, gpus: float = 0, resources: Resources | None = None) -> Machine:
        total = {"CPU": float(cpus)} | ({"GPU": float(gpus)} if gpus else {})
        monkeypatch.setattr(schedule.ray, "cluster_resources", lambda: total)
        searcher = TrieSearcher(plan, store, resources or Resources(), Events(), train_images=12)
        return Machine(searcher, plan, store, cpus)

    return make


def events_of(machine: Machine) -> Events:
    assert isinstance(machine.searcher.listener, Events)
    return machine.searcher.listener


# ---- what may run when


def test_workers_start_before_the_first_stage_and_are_kept_until_one_is_there(machine, plan, store, tmp_path):
    tune = machine(plan, 2)
    searcher = tune.searcher
    searcher.keep_workers(2, tmp_path)
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
    searcher.keep_workers(2, tmp_path)
    kept = {name: searcher.suggest(name) for name in ("a", "b")}
    assert searcher.suggest("load")["stage"] == "load"
    searcher.on_trial_complete("load", error=True)  # and with it everything behind
    assert searcher.is_done()
    assert waiting(kept) == []


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


# ---- the order


def test_the_longest_chain_goes_first(machine, plan, store):
    tune = machine(plan, 16)
    tune.fill()
    tune.end(min(tune.trials))
    tune.fill()
    first = [next(node for node in plan.nodes if node.id == one).stage for one in tune.order[1:]]
    assert first[0] == "fuse", "fusing comes before two trainings, an evaluation before none"
    assert first[1:3] == ["equalize"] * 2
    assert set(first[3:]) == {"evaluate", "profile"}


def test_training_goes_before_calibration_alone_and_measuring_comes_last(machine, store, tmp_path, tmp_path_factory):
    plan = world(tmp_path_factory).plan(space_of(tmp_path, FULL, overrides=("qat.images_per_epoch=1000",)))
    ready = ("load", "fuse", "equalize")
    for node in plan.nodes:
        if node.stage in ready:
            put(store, node)
    tune = machine(plan, 16)
    tune.fill()
    order = [next(node for node in plan.nodes if node.id == one).stage for one in tune.order]
    assert order[:4] == ["calibrate"] * 4, "a tuning follows each of them"
    assert order[4:8] == ["finetune"] * 4
    assert set(order[8:]) == {"evaluate", "profile"}


@pytest.mark.parametrize("cpus", [1, 2, 3])
def test_on_few_cores_measuring_waits_until_nothing_else_waits_or_runs(machine, plan, cpus):
    tune = machine(plan, cpus)
    others = {node.id for node in plan.nodes if node.stage != "profile"}
    while not tune.over:
        tune.fill(most=cpus)
        if "profile" in tune.stages():
            assert set(tune.order) >= others
            assert set(tune.stages()) == {"profile"}
        if tune.trials:
            tune.end(max(tune.trials))
    assert set(tune.order) == {node.id for node in plan.nodes}


def test_on_few_cores_a_measurement_runs_alone_in_a_worker_as_the_others(machine, plan, store):
    for node in plan.nodes:
        if node.stage != "profile":
            put(store, node)
    tune = machine(plan, 3)
    tune.fill()
    assert [config["resources"] for config in tune.trials.values()] == [{"CPU": 1.0}]


@pytest.mark.parametrize("cpus", [4, 64])
def test_on_many_cores_measuring_does_not_wait_and_takes_its_own_threads_alone(machine, plan, cpus):
    tune = machine(plan, cpus)
    tune.fill()
    tune.end(min(tune.trials))
    tune.fill()
    assert tune.stages() == ["equalize", "equalize", "evaluate", "fuse", "profile"]
    measuring = next(config for config in tune.trials.values() if config["stage"] == "profile")
    assert measuring["resources"] == {"CPU": 1.0}


def test_only_what_trains_or_calibrates_asks_for_a_gpu(machine, tmp_path, tmp_path_factory):
    every = ("rounding=true", "mixed_precision=true", "analyze=true")
    plan = world(tmp_path_factory).plan(space_of(tmp_path, FULL, overrides=every))
    tune = machine(plan, 8, gpus=1, resources=Resources(min(2, len(own_cores())), 0.25))
    while not tune.over:
        tune.fill()
        for config in tune.trials.values():
            wanted = {"CPU": float(min(2, len(own_cores())))}
            if config["stage"] in ("calibrate", "round", "correct_bias", "finetune"):
                wanted["GPU"] = 0.25
            assert config["resources"] == ({"CPU": 1.0} if config["stage"] == "profile" else wanted)
        if tune.trials:
            tune.end(min(tune.trials))


@pytest.mark.parametrize("gpus", [0, 1])
def test_no_gpu_is_asked_for_where_there_is_none_or_none_is_wanted(machine, plan, store, gpus):
    for node in plan.nodes:
        if node.stage in ("load", "fuse", "equalize"):
            put(store, node)
    tune = machine(plan, 8, gpus=gpus, resources=Resources(gpus_per_trial=0.0 if gpus else 1.0))
    tune.fill()
    assert "finetune" in tune.stages()
    assert not any("GPU" in config["resources"] for config in tune.trials.values())


@pytest.mark.parametrize("cpus", [2, 4])
def test_a_measurement_asks_for_no_more_cpus_than_there_are_and_would_wait_for_ever(
    machine, tmp_path, tmp_path_factory, cpus
):
    space = space_of(tmp_path, "{method: [ptq]}", overrides=("latency.threads=32",))
    tune = machine(world(tmp_path_factory).plan(space), cpus)
    while not tune.over:
        tune.fill(most=cpus)
        assert all(config["resources"]["CPU"] <= cpus for config in tune.trials.values())
        if tune.trials:
            tune.end(min(tune.trials))


@pytest.mark.parametrize(("asked", "value"), [({"cpus_per_trial": 0}, "0"), ({"cpus_per_trial": 4096}, "4096")])
def test_cpus_that_a_trial_could_never_get_are_refused(asked, value):
    with pytest.raises(InputError, match=rf"--cpus-per-trial: {value} CPUs are asked for; expected 1 to \d+"):
        Resources(**asked)


def test_a_share_of_a_gpu_below_nothing_is_refused():
    with pytest.raises(InputError, match=r"--gpus-per-trial: -0\.5"):
        Resources(gpus_per_trial=-0.5)


# ---- on Ray


@dataclass(frozen=True)
class Ran:
    """A tiny grid that ran on Ray, once with a cell that fails, and then again."""

    plan: Plan
    store: StageStore
    events: Events
    failures: dict[str, str]
    dashboard: Dashboard
    status_without_token: int
    metrics: str
    before: dict[str, int]
    again: Events
    failures_again: dict[str, str]


AXES = "{method: [ptq, qat], qat.learning_rate: [1.0e-4, 1.0e+300]}"


@pytest.fixture(scope="module")
def ran(ray_cluster, tmp_path_factory) -> Ran:
    """A cell fails by its learning rate, and a worker is killed once."""
    here = world(tmp_path_factory)
    folder = tmp_path_factory.mktemp("ray")
    plan = here.plan(space_of(folder, AXES, overrides=("fuse_bn=true",)))
    context = here.context(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "stage_trial", tiny.sighted_stage_trial)
        patch.setattr(profiler, "Profiler", tiny.SightedProfiler)
        status = status_of(ray_cluster.url)
        events, again = Events(), Events()
        failures = run_plan(plan, context, Resources(cpus_per_trial=1), events).failures
        metrics = scraped(ray_cluster.metrics_urls[0], f'cells{{.*state="done".*}} {len(plan.cells) - 1}.0')
        before = written(folder)
        failures_again = run_plan(plan, context, Resources(min(2, len(own_cores()))), again).failures
    store = StageStore(folder)
    return Ran(plan, store, events, failures, ray_cluster, status, metrics, before, again, failures_again)


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(f"{url}/api/version", timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def scraped(url: str, wanted: str) -> str:
    """What a node tells Prometheus, once it says what is ``wanted``, or after half a minute."""
    end = time.monotonic() + 30
    while True:
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
        if re.search(wanted, text) or time.monotonic() > end:
            return text
        time.sleep(0.5)


def broken(ran: Ran) -> dict[str, str]:
    """The node that fails in every run, and those behind it, by stage."""
    relevant = {"method": "qat", "qat.learning_rate": 1e300}
    cell = next(cell for cell in ran.plan.cells if relevant.items() <= cell.settings.items())
    return {stage: cell.nodes[stage] for stage in ("finetune", "convert", "evaluate", "profile")}


pytestmark = pytest.mark.timeout(300)


def test_a_grid_on_ray_ends_with_every_node_in_the_store_but_those_behind_the_failed_one(ran):
    there = {node.id for node in ran.plan.nodes if ran.store.verify(node.id)}
    assert {node.id for node in ran.plan.nodes} - there == set(broken(ran).values())
    assert set(ran.failures) == set(broken(ran).values())


def test_a_reason_is_one_line_that_names_stage_error_and_log(ran):
    reason = ran.failures[broken(ran)["finetune"]]
    assert re.fullmatch(r"finetune: \w+Error: .+ \(log: .+\.log\)", reason)
    log = Path(reason.partition("(log: ")[2].rstrip(")"))
    assert "Traceback" in log.read_text()
    cell = next(cell.name for cell in ran.plan.cells if broken(ran)["finetune"] in cell.nodes.values())
    assert log.parent == ran.store.root / "logs" / cell
    assert ran.events.reasons == dict.fromkeys(ran.failures, reason)
    assert ran.events.own == {broken(ran)["finetune"]}


def test_the_listener_hears_once_that_a_node_started_and_ended(ran):
    ids = {node.id for node in ran.plan.nodes}
    assert ran.events.times("finished") == Counter(ids - set(broken(ran).values()))
    assert ran.events.times("failed") == Counter(set(broken(ran).values()))
    first = {what: [node for one, node in ran.events.seen if one == what] for what in ("started", "finished")}
    for node in ran.plan.nodes:
        if node.id in first["finished"]:
            started = ran.events.seen.index(("started", node.id))
            assert started < ran.events.seen.index(("finished", node.id))
            for _, upstream in node.inputs:
                assert ran.events.seen.index(("finished", upstream)) < started


def test_training_sends_news_of_its_epochs(ran):
    assert any(info.get("epoch") == 1 and "val_ssim" in info for info in ran.events.news)


def test_a_worker_that_is_killed_is_replaced_and_its_node_computed(ran):
    assert (ran.store.root / "died").exists()
    fuse = next(node.id for node in ran.plan.nodes if node.stage == "fuse")
    assert ran.store.verify(fuse)
    assert ran.events.times("started")[fuse] == 2
    assert ran.events.times("retried") == Counter([fuse])
    assert "its worker was killed or crashed" in ran.events.reasons_again[fuse]


def test_no_two_workers_are_on_one_core_at_a_time(ran):
    notes = sightings(ran.store.root)
    assert {note["stage"] for note in notes} == {node.stage for node in ran.plan.nodes}
    together = [
        (one, other)
        for one, other in itertools.combinations(notes, 2)
        if one["start"] < other["end"] and other["start"] < one["end"]
    ]
    assert bool(together) == (len(own_cores()) > 1), "the two tunings run side by side where they can"
    for one, other in together:
        assert not set(one["cores"]) & set(other["cores"]), (one, other)


def test_a_worker_has_as_many_torch_threads_as_cores_and_as_many_cores_as_asked_for(ran):
    notes = sightings(ran.store.root)
    assert all(note["threads"] == len(note["cores"]) for note in notes)
    assert all(set(note["cores"]) <= set(own_cores()) for note in notes)
    failing = [note for note in notes if note["node"] == broken(ran)["finetune"]]
    assert [len(note["cores"]) for note in failing] == [1, min(2, len(own_cores()))], "as the two runs asked"
    others = [note for note in notes if note["node"] != broken(ran)["finetune"]]
    assert {len(note["cores"]) for note in others} == {1}


def test_workers_are_as_nice_as_the_driver_so_that_others_do_not_slow_a_measurement(ran):
    assert {note["niceness"] for note in sightings(ran.store.root)} == {os.nice(0)}


def test_a_second_run_tries_what_failed_and_nothing_else(ran):
    assert written(ran.store.root) == ran.before
    tuned = broken(ran)["finetune"]
    assert ran.again.times("started") == Counter([tuned])
    assert set(ran.failures_again) == set(broken(ran).values())


def test_the_dashboard_answers_and_says_how_to_open_it(ran):
    assert ran.dashboard.url.startswith("http://127.0.0.1:")
    assert ran.status_without_token in (200, 401)
    assert (ran.status_without_token == 401) == ("token" in ran.dashboard.how_to_open())


def test_the_metrics_of_the_node_tell_prometheus_how_the_grid_ended(ran):
    found = {}
    for name, tags, value in re.findall(r"^ray_quantization_grid_(\w+)\{(.*)\} (\S+)$", ran.metrics, re.MULTILINE):
        labels = dict(re.findall(r'(\w+)="([^"]*)"', tags))
        found[name, labels.get("state") or labels["cell"]] = float(value)
    states = ("waiting", "running", "done", "failed")
    assert [found["cells", state] for state in states] == [0, 0, len(ran.plan.cells) - 1, 1]
    ended = len(ran.plan.nodes) - len(broken(ran))
    assert [found["stages", state] for state in states] == [0, 0, ended, len(broken(ran))]
    for cell in ran.plan.cells:
        here = [one not in broken(ran).values() for one in cell.nodes.values()]
        assert found["cell_done_ratio", cell.name] == pytest.approx(sum(here) / len(here))


def test_a_whole_store_needs_no_ray(tmp_path, tmp_path_factory, monkeypatch):
    here = world(tmp_path_factory)
    plan = here.plan(space_of(tmp_path, "{method: [ptq]}"))
    for node in plan.nodes:
        put(StageStore(tmp_path), node)
    monkeypatch.setattr(schedule, "ray", None)
    assert run_plan(plan, here.context(tmp_path), Resources(), Events()) == RunOutcome({})


def test_records_are_json_that_other_tools_can_read(ran):
    for node in ran.plan.nodes:
        if ran.store.has(node.id):
            assert json.loads((ran.store.path(node.id) / "result.json").read_text())["id"] == node.id
