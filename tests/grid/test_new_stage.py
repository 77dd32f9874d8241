"""A stage that this file adds, by one row of the table and the function that the row names, goes all the way."""

import io
from dataclasses import replace

import pytest
from ray.tune.search import Searcher
from rich.console import Console

from grid.planning import stage_table
from grid.planning.plan import Node, Plan
from grid.planning.stage import GPU, Stage
from grid.planning.stage_table import STAGES
from grid.results.rows import result_rows
from grid.run.costs import Costs
from grid.run.plan_text import describe
from grid.run.progress import Progress
from grid.scheduling import searcher as searcher_module
from grid.scheduling.listener import Listeners
from grid.scheduling.metrics import GridMetrics
from grid.scheduling.resources import Resources
from grid.scheduling.searcher import TrieSearcher
from grid.stages.run import run_node
from grid.stages.work import Context, Outcome, Work
from quant.artifact import load_network
from tests.grid.tiny import space_of, world

TRAIN_IMAGES = 12


def count_zeros(work: Work) -> Outcome:
    """The function of the new stage: how many weights of the network are (almost) zero."""
    threshold = float(work.node.settings["qat.travel"] or 0)
    weights = [value.abs().flatten() for value in load_network(work.inputs["network"]).parameters()]
    for number in range(1, len(weights) + 1):
        work.progress({"step": number, "steps": len(weights)})
    return Outcome({"zeros": sum(int((value < threshold).sum()) for value in weights)})


COUNT_ZEROS = Stage(
    "count_zeros",
    "tests.grid.test_new_stage:count_zeros",
    settings=("qat.travel",),
    inputs=lambda chain: {"network": chain.root},
    gives_network=False,
    device=GPU,
    seconds=1000.0,
    counts_images=True,
    columns=lambda record: {"zeros": record["metrics"]["zeros"]},
    folder_column="zeros_folder",
)


@pytest.fixture
def plan(tmp_path, tmp_path_factory, monkeypatch) -> Plan:
    """The float cells of a tiny grid, each with the new stage."""
    monkeypatch.setattr(stage_table, "STAGES", (*STAGES, COUNT_ZEROS))
    whole = world(tmp_path_factory).plan(space_of(tmp_path, "{method: [ptq]}"))
    cells = tuple(cell for cell in whole.cells if cell.settings["method"] == "fp32")
    needed = {node for cell in cells for node in cell.nodes.values()}
    return replace(whole, cells=cells, nodes=tuple(node for node in whole.nodes if node.id in needed))


@pytest.fixture
def context(tmp_path, tmp_path_factory) -> Context:
    return world(tmp_path_factory).context(tmp_path / "storage")


def new(plan: Plan) -> Node:
    """The one node of the new stage: both cells look at the same float network."""
    (node,) = [node for node in plan.nodes if node.stage == "count_zeros"]
    return node


def test_the_plan_has_it_in_every_cell_with_the_settings_and_inputs_of_its_row(plan):
    node = new(plan)
    assert {cell.nodes["count_zeros"] for cell in plan.cells} == {node.id}
    assert node.settings.keys() == {"qat.travel"}
    assert dict(node.inputs) == {"network": plan.cells[0].nodes["load"]}
    assert all("qat.travel" in cell.relevant for cell in plan.cells)


def test_the_rest_of_the_plan_is_as_without_it(plan, tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(stage_table, "STAGES", STAGES)
    before = world(tmp_path_factory).plan(space_of(tmp_path, "{method: [ptq]}"))
    assert {node.id for node in plan.nodes} - {new(plan).id} <= {node.id for node in before.nodes}


def test_it_asks_for_the_device_of_its_row(plan):
    total = {"CPU": 8.0, "GPU": 1.0}
    assert Resources(gpus_per_trial=0.5).of(new(plan), total) == {"CPU": 1.0, "GPU": 0.5}


def test_it_goes_through_scheduling_costs_progress_metrics_and_rows(plan, context, monkeypatch):
    monkeypatch.setattr(searcher_module.ray, "cluster_resources", lambda: {"CPU": 2.0})
    store, text = context.stages(), io.StringIO()
    costs = Costs(store, TRAIN_IMAGES)
    assert costs.seconds(new(plan)) == 1000.0
    assert costs.wall_seconds(plan, [new(plan).id], 1) == 1000.0
    assert any(f"count_zeros({len(new(plan).cells)})" in line for line in describe(plan, store))
    assert describe(plan, store)[-1].split() == ["count_zeros", "1", "0"]
    progress = Progress(plan, store, Console(file=text, width=200), costs)
    metrics = GridMetrics(plan, (), TRAIN_IMAGES)
    searcher = TrieSearcher(plan, store, Resources(), Listeners(metrics, progress), TRAIN_IMAGES)
    order, counted = [], []
    while (suggested := searcher.suggest(f"trial-{len(order)}")) != Searcher.FINISHED:
        node = next(node for node in plan.nodes if node.id == suggested["node"])
        order.append(node.stage)
        searcher.listener.started(node)

        def news(info, node=node):
            searcher.listener.progressed(node, info)
            if node.stage == "count_zeros":
                counted.append(metrics.running[node.id][1].images)

        run_node(node, context, news)
        searcher.on_trial_complete(f"trial-{len(order) - 1}")
    assert order[:2] == ["load", "count_zeros"], "by its row it takes longest"
    assert counted[-1] > counted[0] > 0, "its steps are pictures, for the metrics"
    assert searcher.failures == {}
    assert "count_zeros" in text.getvalue()
    assert costs.seconds(new(plan)) == pytest.approx(store.record(new(plan).id)["seconds"])

    rows = {row["cell"]: row for row in result_rows(plan, store, {})}
    zeros = store.record(new(plan).id)["metrics"]["zeros"]
    assert zeros > 0
    for row in rows.values():
        assert (row["status"], row["zeros"]) == ("ok", zeros)
        assert row["zeros_folder"] == str(store.path(new(plan).id))
