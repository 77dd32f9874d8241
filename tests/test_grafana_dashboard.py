"""The dashboard for Grafana asks for metrics that a grid has, and a Prometheus that scraped one answers all of it."""

import json
import os
import re
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from grid.planning.plan import Plan
from grid.scheduling.metrics import METRICS, STATES
from grid.stages.work import Outcome, Work
from tests.grid.storage.s3_server import free_port
from tests.grid.tiny import ROOT, space_of, unmeasured, world

FILE = ROOT / "cluster" / "grafana-dashboard.json"
DASHBOARD = json.loads(FILE.read_text())
PANELS = DASHBOARD["panels"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
RAY = {"ray_node_cpu_utilization", "ray_node_mem_used", "ray_node_mem_total"}
OF_GPUS = {"ray_node_gpus_utilization", "ray_node_gram_used", "ray_node_gram_available"}
"""Of Ray's own; these are there on machines with a GPU alone."""
FREE_OF_LABELS = {"SessionName", "instance", "GpuIndex"}
"""Labels that Ray and Prometheus put on every metric."""


def names(expression: str) -> set[str]:
    return set(re.findall(r"\bray_\w+", expression))


def test_every_query_asks_for_a_metric_of_the_grid_or_of_ray_by_its_labels():
    asked = set().union(*(names(expression) for _, expression in QUERIES))
    ours = {f"ray_{name}" for name in METRICS}
    assert ours <= asked <= ours | RAY | OF_GPUS, "all metrics of the grid are shown"
    for title, expression in QUERIES:
        labels = {label for name in names(expression) & ours for label in METRICS[name.removeprefix("ray_")][1]}
        by = {label.strip() for group in re.findall(r"\bby \(([^)]*)\)", expression) for label in group.split(",")}
        inside = set(re.findall(r"(\w+)=~?\"", expression))
        assert by | inside <= labels | FREE_OF_LABELS, title
        assert set(re.findall(r'\bstate=~?"([^"]*)"', expression)) <= {*STATES, "waiting|running"}, title
        assert expression.count('SessionName=~"$session"') == len(re.findall(r"\bray_\w+", expression)), title


def test_legends_speak_of_labels_that_the_query_keeps():
    for panel in PANELS:
        for target in panel["targets"]:
            shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            kept = re.findall(r"\bby \(([^)]*)\)", target["expr"])
            assert shown <= set(re.split(r",\s*", kept[0]) if kept else {"cell", "phase"}), panel["title"]


def test_panels_do_not_overlap_and_each_says_what_it_shows():
    assert len({panel["id"] for panel in PANELS}) == len({panel["title"] for panel in PANELS}) == len(PANELS)
    places = [panel["gridPos"] for panel in PANELS]
    for one, other in combinations(places, 2):
        apart = [one[a] + one[s] <= other[a] or other[a] + other[s] <= one[a] for a, s in (("x", "w"), ("y", "h"))]
        assert any(apart), (one, other)
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert all(panel["description"] and panel["fieldConfig"]["defaults"]["unit"] for panel in PANELS)
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource", "session"} == set(re.findall(r"\$\{?(\w+)", FILE.read_text())) - {"__all"}


def sleeps(work: Work) -> Outcome:
    """The function of a stage that does nothing for a while, and says that it works through pictures."""
    seconds = float(os.environ.get("SLEEPING_STAGE_S", "3"))
    for step in range(1, 11):
        time.sleep(seconds / 10)
        work.progress({"epoch": 1, "epochs": 1, "step": step, "steps": 10})
    (work.out / "network.json").write_text(json.dumps({"of": work.node.id}))
    return Outcome({"graph_hash": work.node.id})


def sleeping(plan: Plan) -> Plan:
    """The plan with stages that sleep, and without those that wait for the whole machine."""
    plan = unmeasured(plan)
    return replace(plan, nodes=tuple(replace(node, function=f"{__name__}:sleeps") for node in plan.nodes))


@contextmanager
def prometheus(configuration: Path, folder: Path) -> Iterator[str]:
    """Prometheus on what Ray wrote for it, on 127.0.0.1 alone; yields its address."""
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus", f"--config.file={configuration}", f"--web.listen-address={address}"]
    with (folder / "prometheus.txt").open("w") as output:
        process = subprocess.Popen(
            [*command, f"--storage.tsdb.path={folder}/prometheus"], stdout=output, stderr=output, cwd=folder
        )
    try:
        yield f"http://{address}"
    finally:
        process.kill()
        process.wait()


def answer(address: str, expression: str) -> list[dict[str, Any]]:
    """The series of an answer, [] where nobody listens yet; raises where the query is wrong."""
    query = urllib.parse.urlencode({"query": expression.replace("$session", ".*")})
    try:
        with urllib.request.urlopen(f"{address}/api/v1/query?{query}", timeout=5) as reply:
            return json.load(reply)["data"]["result"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{expression}: {error.read().decode()}") from error
    except OSError:
        return []


@pytest.mark.long
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Prometheus: apt-get install prometheus")
def test_a_prometheus_that_scrapes_a_grid_answers_every_query(tmp_path, tmp_path_factory, monkeypatch):
    from grid.scheduling.listener import Listeners
    from grid.scheduling.resources import Resources
    from grid.scheduling.tune import cluster, run_plan

    here = world(tmp_path_factory)
    plan = sleeping(here.plan(space_of(tmp_path, "{method: [ptq, ptq+qat], granularity: [per_channel, per_tensor]}")))
    short = Path("/tmp") / f"ray-{os.getpid()}"  # with a longer one Ray's sockets have names that are too long
    monkeypatch.setenv("RAY_TMPDIR", str(short))
    monkeypatch.setenv("SLEEPING_STAGE_S", "6")  # so that it runs longer than Ray and Prometheus need to notice
    unanswered, ended = dict.fromkeys(expression for _, expression in QUERIES if not names(expression) & OF_GPUS), []

    def ask(address: str) -> None:
        while not ended:
            for expression in list(unanswered):
                if answer(address, expression):
                    del unanswered[expression]
            time.sleep(1)

    try:
        with cluster(Resources()):
            written = short / "ray" / "session_latest" / "metrics" / "prometheus" / "prometheus.yml"
            with prometheus(written, tmp_path) as address:
                asking = threading.Thread(target=ask, args=(address,))
                asking.start()
                outcome = run_plan(plan, here.context(tmp_path / "storage"), Resources(), Listeners())
                ended.append(True)
                asking.join()
                for expression in (expression for _, expression in QUERIES if names(expression) & OF_GPUS):
                    answer(address, expression)  # no series here, and no mistake in the query
                (done,) = answer(address, "max(ray_quantization_grid_cells{state='done'})")
    finally:
        shutil.rmtree(short, ignore_errors=True)
    assert outcome.failures == {}
    assert list(unanswered) == []
    assert float(done["value"][1]) > 0
