"""Five Ray nodes that share no folder: one is lost and one added while a grid runs; nothing is lost of the grid."""

import csv
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from grid.planning.plan import Plan
from grid.planning.stage import GPU
from grid.planning.stage_table import STAGES
from grid.stages.run import run_node
from grid.storage.result_store import StageStore
from tests.faults.cluster import Cluster
from tests.faults.mlflow_server import Server
from tests.faults.test_mlflow_down import delivered
from tests.grid.storage.s3_server import s3_server, s3_uri
from tests.grid.tiny import ROOT, space_file, space_of, world

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]
AXES = "{method: [ptq, ptq+qat], fuse_bn: [true], granularity: [per_channel, per_tensor]}"
FIGURES = ("test_ssim", "test_mse", "sqnr_db", "simulated_ssim", "size_mb", "graph_hash")


@dataclass(frozen=True)
class Ran:
    """The grid of a cluster: its plan, what the driver said, and the folders of all nodes."""

    plan: Plan
    cluster: Cluster
    status: int
    said: str
    mlflow: Server
    delivered: int
    elsewhere: str
    alone: dict[str, dict[str, str]]

    def rows(self, machine: str = "driver") -> dict[str, dict[str, str]]:
        (file,) = (self.cluster.folder / machine).glob("*/runs/first/results.csv")
        with file.open(newline="") as text:
            return {row["cell"]: row for row in csv.DictReader(text)}

    def ids(self, *stages: str) -> set[str]:
        return {node.id for node in self.plan.nodes if node.stage in stages}


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Ran:
    here, folder = world(tmp_path_factory), tmp_path_factory.mktemp("cluster")
    space_file(folder / "tiny.yaml", AXES)
    cluster, mlflow = Cluster(folder), Server(folder / "mlflow")
    command = [sys.executable, str(ROOT / "runner.py")]
    with s3_server() as (port, _):
        storage = ["--storage", s3_uri(port, "grids/first")]
        asked = ["--grid", str(folder / "tiny.yaml"), "--checkpoint", str(here.checkpoint), "--run-name", "first"]
        asked += ["--set", "rounding=false", "--address", cluster.address, "--tracking-uri", mlflow.uri]
        try:
            mlflow.start()
            for name in ("head", "cpu-1", "cpu-2", "gpu-1", "profiler-1"):
                cluster.add(name)
            log = folder / "driver.txt"
            with log.open("w") as output:
                driver = subprocess.Popen(
                    [*command, *asked, *storage], env=cluster.environment("driver"), stdout=output, stderr=output
                )
            while driver.poll() is None and not re.search(r"\[[4-9]/", log.read_text()):
                time.sleep(0.1)
            cluster.lose("cpu-2")
            cluster.add("cpu-3")
            status = driver.wait(400)
            count = delivered(mlflow, "first")
            report = [*command, "--report", "first", *storage]
            elsewhere = subprocess.run(report, env=cluster.environment("elsewhere"), capture_output=True, text=True)
        finally:
            cluster.stop()
            mlflow.kill()
    plan = here.plan(space_of(folder, AXES, overrides=("rounding=false",)))
    alone = figures_alone(plan, here.context(folder / "alone"))
    said = elsewhere.stdout + elsewhere.stderr
    return Ran(plan, cluster, status, log.read_text(), mlflow, count, said, alone)


def figures_alone(plan: Plan, context) -> dict[str, dict[str, str]]:
    """What one process computes by itself."""
    for node in plan.nodes:
        if node.stage != "profile":
            run_node(node, context)
    from grid.results.results_csv import write_results_csv
    from grid.results.rows import result_rows

    file = write_results_csv(result_rows(plan, StageStore(context.storage), {}), Path(context.storage) / "results.csv")
    with file.open(newline="") as text:
        return {row["cell"]: row for row in csv.DictReader(text)}


def test_the_grid_ends_well_with_a_node_lost_and_another_added(ran):
    assert ran.status == 0, ran.said[-3000:]
    assert {row["status"] for row in ran.rows().values()} == {"ok"}


def test_its_figures_are_those_of_one_process(ran):
    for cell, row in ran.rows().items():
        assert {name: row[name] for name in FIGURES} == {name: ran.alone[cell][name] for name in FIGURES}, cell


def test_what_can_use_a_gpu_runs_where_one_is_promised_even_if_torch_finds_none(ran):
    assert ran.ids(*(stage.name for stage in STAGES if stage.device == GPU)) <= ran.cluster.stages("gpu-1")


def test_only_the_node_with_the_profiler_resource_measures(ran):
    measured = ran.ids("profile")
    assert measured <= ran.cluster.stages("profiler-1")
    others = [ran.cluster.stages(name) for name in ("cpu-1", "cpu-2", "cpu-3", "gpu-1", "head")]
    assert not measured & set().union(*others)
    assert all(row["cpu_model"] for row in ran.rows().values())


def test_nodes_that_compute_hold_only_what_they_made_or_needed(ran):
    assert ran.cluster.stages("head") == set()
    assert ran.cluster.stages("cpu-1")
    assert ran.cluster.stages("cpu-3"), "the node that was added took part"


def test_mlflow_has_every_cell(ran):
    assert ran.delivered == len(ran.rows())


def test_another_machine_makes_the_same_report_from_the_uri_alone(ran):
    assert "report.html" in ran.elsewhere, ran.elsewhere
    assert ran.rows("elsewhere").keys() == ran.rows().keys()
    for cell, row in ran.rows("elsewhere").items():
        assert {name: row[name] for name in FIGURES} == {name: ran.rows()[cell][name] for name in FIGURES}
