"""A tiny grid that really runs on Ray: every stage once, on cores of its own."""

import gc
import itertools
import json
import os
import re
import time
import urllib.error
import urllib.request
import weakref
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from grid.planning.plan import Plan
from grid.scheduling import profiler
from grid.scheduling import tune as schedule
from grid.scheduling.cores import own_cores
from grid.scheduling.outcome import RunOutcome
from grid.scheduling.tune import Dashboard, Resources, run_plan
from grid.storage.result_store import StageStore
from tests.grid import tiny
from tests.grid.scheduling.events import Events
from tests.grid.tiny import put, sightings, space_of, world, written


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


AXES = "{method: [ptq, qat], qat.travel: [1.0e-4, 1.0e+300]}"


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
    relevant = {"method": "qat", "qat.travel": 1e300}
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


def test_no_thread_collects_circles_while_ray_shuts_down(monkeypatch):
    """Ray ends the process in which one with an ObjectRef in it is collected then."""

    class Circle:
        def __init__(self) -> None:
            self.own = self

    known, alive = [], []

    def shutdown() -> None:
        alive.extend(circle() is not None for circle in known)
        known.append(weakref.ref(Circle()))
        for _ in range(100_000):  # many collections of all ages, were they on
            Circle()
        alive.append(known[-1]() is not None)

    monkeypatch.setattr(schedule.ray, "init", lambda **_: SimpleNamespace(dashboard_url=""))
    monkeypatch.setattr(schedule.ray, "nodes", list)
    monkeypatch.setattr(schedule.ray, "shutdown", shutdown)
    with schedule.cluster(Resources()):
        known.append(weakref.ref(Circle()))
    assert alive == [False, True]
    assert gc.isenabled()
