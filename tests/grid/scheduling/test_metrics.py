"""The gauges of a grid: what they say of cells, stages and pictures a second, without Ray."""

import itertools
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from grid.planning.plan import Node, Plan
from grid.scheduling import metrics as ray_metrics
from grid.scheduling.metrics import METRICS, REFRESH_S, STATES, WINDOW_S, GridMetrics, Throughput, images_seen
from grid.stages.run import run_node
from tests.grid.scheduling.gauges import Clock, FakeGauge
from tests.grid.tiny import ROOT, space_of, world

AXES = "{method: [ptq, qat, ptq+qat], fuse_bn: [false, true]}"
TRAIN_IMAGES = 10


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(ray_metrics, "time", clock)
    monkeypatch.setattr(ray_metrics, "Gauge", FakeGauge)
    return clock


@pytest.fixture
def plan(tmp_path, tmp_path_factory) -> Plan:
    return world(tmp_path_factory).plan(space_of(tmp_path, AXES, overrides=("train.init=random",)), trained=True)


@pytest.fixture
def metrics(plan, clock) -> GridMetrics:
    return GridMetrics(plan, (), TRAIN_IMAGES)


def shown(metrics: GridMetrics, name: str) -> dict[tuple[str, ...], float]:
    """The values of one metric after a refresh."""
    metrics.refresh(now=True)
    gauge: Any = metrics.gauges[f"quantization_grid_{name}"]
    return gauge.values


def node_of(plan: Plan, cell: str, stage: str) -> Node:
    wanted = next(one for one in plan.cells if one.name == cell).nodes[stage]
    return next(node for node in plan.nodes if node.id == wanted)


# ---- states


def test_before_anything_runs_all_waits_but_what_is_in_the_store(plan, clock):
    fp32 = next(cell for cell in plan.cells if cell.name == "fp32")
    metrics = GridMetrics(plan, set(fp32.nodes.values()), TRAIN_IMAGES)
    assert shown(metrics, "cells") == {("waiting",): 7.0, ("running",): 0.0, ("done",): 1.0, ("failed",): 0.0}
    assert shown(metrics, "stages")["done",] == 3.0
    ratios = shown(metrics, "cell_done_ratio")
    assert ratios["fp32",] == 1.0
    assert ratios["fp32-fuse_bn",] == pytest.approx(1 / 4), "its training is done"


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_cells_and_stages_are_counted_by_what_their_nodes_did(plan, metrics, seed):
    draw = random.Random(seed)
    states = {node.id: "waiting" for node in plan.nodes}
    for _ in range(120):
        node = draw.choice(plan.nodes)
        state = draw.choice(["running", "done", "failed"])
        states[node.id] = state
        act = {
            "running": metrics.started,
            "done": metrics.finished,
            "failed": lambda one: metrics.failed(one, "", False),
        }
        act[state](node)
        expected = Counter(expected_state([states[one] for one in cell.nodes.values()]) for cell in plan.cells)
        assert shown(metrics, "cells") == {(one,): float(expected[one]) for one in STATES}
        assert shown(metrics, "stages") == {(one,): float(Counter(states.values())[one]) for one in STATES}
        for cell in plan.cells:
            done = [states[one] == "done" for one in cell.nodes.values()]
            assert shown(metrics, "cell_done_ratio")[cell.name,] == pytest.approx(sum(done) / len(done))


def expected_state(states: list[str]) -> str:
    if "failed" in states:
        return "failed"
    if all(state == "done" for state in states):
        return "done"
    return "running" if "running" in states else "waiting"


def test_the_phase_of_a_cell_is_one_while_it_runs_and_zero_behind_it(plan, metrics):
    tuned = node_of(plan, "fuse_bn-per_channel-qat", "finetune")
    fuse = node_of(plan, "fuse_bn-per_channel-qat", "fuse")
    metrics.started(fuse)
    phases = shown(metrics, "cell_phase")
    users = {cell.name for cell in plan.cells if fuse.id in cell.nodes.values()}
    assert len(users) > 2
    assert phases == {(name, "fuse"): 1.0 for name in users}
    metrics.finished(fuse)
    metrics.started(tuned)
    phases = shown(metrics, "cell_phase")
    assert phases.pop(("fuse_bn-per_channel-qat", "finetune")) == 1.0
    assert set(phases.values()) == {0.0}


# ---- what it costs, and how Ray keeps it


def test_news_set_no_gauge_and_a_refresh_sets_each_once_every_few_seconds(plan, metrics, clock):
    node = node_of(plan, "fp32", "train")
    metrics.started(node)
    for step in range(1000):
        metrics.progressed(node, {"epoch": 1, "epochs": 1, "step": 1 + step // 500, "steps": 3})
        metrics.refresh()
        clock.now += REFRESH_S / 100
    for gauge in metrics.gauges.values():
        assert all(count <= 11 for count in gauge.times.values())  # type: ignore[attr-defined]
    assert metrics.gauges["quantization_grid_cells"].times["waiting",] >= 9, "Ray forgets what is not set again"  # type: ignore[attr-defined]


def test_the_news_that_are_kept_do_not_grow_with_the_length_of_a_stage():
    rate = Throughput()
    for step in range(10_000):
        rate.hear(step, 10_000, float(step))
        rate.per_second(step + 0.5)
    assert len(rate.heard) <= WINDOW_S + 2


def test_a_large_grid_is_counted_without_a_series_a_cell(plan, clock, monkeypatch):
    monkeypatch.setattr(ray_metrics, "MOST_CELLS", len(plan.cells) - 1)
    metrics = GridMetrics(plan, (), TRAIN_IMAGES)
    metrics.started(node_of(plan, "fp32", "train"))
    assert shown(metrics, "cells")["running",] == len(plan.cells)
    assert shown(metrics, "cell_done_ratio") == shown(metrics, "cell_phase") == {}


# ---- pictures a second


def test_training_is_counted_in_pictures_of_batches_that_may_be_smaller_at_the_end(plan, metrics, clock):
    node = node_of(plan, "fp32", "train")  # batches of 4, 10 pictures an epoch
    news = [
        ({"epoch": 1, "step": 1, "steps": 3}, 4),
        ({"epoch": 1, "step": 2, "steps": 3}, 8),
        ({"epoch": 1, "step": 3, "steps": 3}, 10),
        ({"epoch": 1, "val_ssim": 0.5}, 10),
        ({"epoch": 2, "step": 1, "steps": 3}, 14),
    ]
    assert [images_seen(node, info, TRAIN_IMAGES) for info, _ in news] == [images for _, images in news]
    metrics.started(node)
    for info, _ in news:
        metrics.progressed(node, info)
        clock.now += 2.0
    cells = f"{len(node.cells)}-cells"
    assert shown(metrics, "images_per_second") == {("train", cells, node.id[:8]): pytest.approx((14 - 4) / 10.0)}


def test_a_stage_that_ended_leaves_no_rate_behind_however_it_ended(plan, metrics, clock):
    node = node_of(plan, "per_channel-qat", "finetune")
    for end in (metrics.finished, lambda one: metrics.failed(one, "it broke", False)):
        metrics.started(node)
        for step in (1, 2):
            metrics.progressed(node, {"epoch": 1, "step": step, "steps": 2})
            clock.now += 1.0
        tags = ("finetune", "per_channel-qat", node.id[:8])
        assert shown(metrics, "images_per_second") == {tags: pytest.approx(2 / 2.0)}
        end(node)
        assert shown(metrics, "images_per_second") == {tags: 0.0}
        before = metrics.gauges["quantization_grid_images_per_second"].times[tags]  # type: ignore[attr-defined]
        metrics.refresh(now=True)
        assert metrics.gauges["quantization_grid_images_per_second"].times[tags] == before  # type: ignore[attr-defined]


def test_a_worker_that_took_over_from_a_dead_one_starts_to_count_anew(plan, metrics, clock):
    node = node_of(plan, "per_channel-qat", "finetune")
    metrics.started(node)
    metrics.progressed(node, {"epoch": 1, "step": 2, "steps": 2})
    clock.now += 1.0
    metrics.started(node)
    for step in (1, 2):
        metrics.progressed(node, {"epoch": 1, "step": step, "steps": 2})
        clock.now += 1.0
    assert list(shown(metrics, "images_per_second").values()) == [pytest.approx(2 / 2.0)]


def test_one_count_is_no_rate_and_none_for_long_is_zero():
    rate = Throughput()
    assert rate.per_second(0.0) is None
    rate.hear(16, 128, 0.0)
    assert rate.per_second(1.0) is None
    assert rate.per_second(WINDOW_S + 1.0) == 0.0


def test_a_stage_of_which_nothing_is_heard_falls_to_zero():
    rate = Throughput()
    for step in range(4):
        rate.hear(16 * step, 128, float(step))
    rates = [rate.per_second(moment) for moment in (3.0, 6.0, 12.0, WINDOW_S + 4)]
    assert rates == [16.0, 8.0, 4.0, 0.0]


def test_a_second_pass_over_the_pictures_counts_on_though_its_end_was_not_heard():
    rate = Throughput()
    for moment, images in enumerate([16, 112, 16, 48]):  # 128 were not heard of
        rate.hear(images, 128, float(moment))
    assert rate.per_second(3.0) == pytest.approx((128 + 48 - 16) / 3)
    rate = Throughput()
    for moment in (0.0, 1.0):  # passes so short that only their ends are heard
        rate.hear(4, 4, moment)
    assert rate.per_second(1.0) == 4.0


def test_layers_are_no_pictures(tmp_path, tmp_path_factory):
    more = ("rounding=true", "mixed_precision=true", "analyze=true")
    plan = world(tmp_path_factory).plan(space_of(tmp_path, AXES, overrides=more))
    stages = {node.stage: node for node in plan.nodes}
    for stage in ("round", "correct_bias", "mix", "analyze", "equalize", "profile", "load"):
        assert images_seen(stages[stage], {"step": 7, "steps": 9}, TRAIN_IMAGES) is None


def test_what_stages_really_report_adds_up_to_the_pictures_that_they_see(tmp_path, tmp_path_factory):
    here = world(tmp_path_factory)
    space = space_of(
        tmp_path,
        "{method: [ptq+qat]}",
        "baselines: false",
        overrides=("equalize=off", "rounding=off", "bias_correction=off", "qat.epochs=2", "qat.images_per_epoch=3"),
    )
    plan, context = here.plan(space), here.context(tmp_path)
    last: dict[str, tuple[int, int]] = {}
    for node in plan.nodes:
        if node.stage == "profile":
            continue
        heard: list[dict[str, Any]] = []
        run_node(node, context, heard.append)
        rate, counted = Throughput(), itertools.count()
        for info in heard:
            images = images_seen(node, info, 12)
            assert images is not None
            rate.hear(images, int(info.get("steps", 0)), float(next(counted)))
        total = [images for _, images in rate.heard]
        assert total == sorted(total)
        if total:
            last[f"{node.stage} of {len(node.inputs)}"] = (total[0], total[-1])
    assert last == {
        "evaluate of 1": (4, 4 + 4),
        "calibrate of 1": (4, 4),
        "finetune of 2": (0, 2 * 3),
        "evaluate of 3": (4, 2 * 4 + 4),
    }, "four test rooms, twice for an int8 network (itself and its simulation), and four for validation"


# ---- names


def test_names_keep_to_the_rules_of_prometheus():
    for name, (description, tags) in METRICS.items():
        assert re.fullmatch(r"quantization_grid_[a-z_]+", name)
        assert not name.endswith(("_total", "_count", "_sum", "_bucket")), "those are counters and histograms"
        assert description
        assert all(re.fullmatch(r"[a-z]+", tag) for tag in tags)


def test_the_page_that_explains_them_names_all_metrics_and_no_others():
    text = Path(ROOT / "docs" / "watching.md").read_text()
    assert set(re.findall(r"`ray_(quantization_grid_\w+)", text)) == set(METRICS)
    for name, (_, tags) in METRICS.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `ray_{name}`"))
        assert [f"`{tag}`" in row.split("|")[2] for tag in tags] == [True] * len(tags), row
