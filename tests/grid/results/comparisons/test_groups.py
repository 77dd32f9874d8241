"""The best is told with what cannot be told from it, a front leaves out what is beaten, ranks are groups."""

import time

import numpy as np
import pytest

from grid.results.comparisons.evidence import Evidence
from grid.results.comparisons.groups import as_good, best, pareto_front, rank_groups
from grid.results.ranking import LATENCY, SIZE
from tests.grid.measures import SSIM
from tests.grid.report.report_rows import figures_of, row
from tests.grid.results.comparisons.made_up_images import evidence_of, scenes_of


def measured(shifts: dict[str, float], spread: float = 3e-4, scenes: int = 32, margin: float = 0.001) -> Evidence:
    """Cells whose SSIMs differ by these shifts, and by noise that goes with scene and image."""
    noise, scene = np.random.default_rng(0), scenes_of(scenes)
    common = 0.8 + noise.normal(0, 0.05, scenes)[scene]
    rows = [row(name, method="qat", graph_hash=name, **figures_of(0.8, 1.6, 2.0)) for name in shifts]
    ssim = {}
    for name, shift in shifts.items():
        own = noise.normal(0, spread, scenes)[scene] + noise.normal(0, spread, len(scene))
        ssim[name] = common + shift + own - own.mean()
    return evidence_of(rows, ssim, scene, margin)


def test_ssim_within_the_margin_is_a_tie_where_there_are_no_figures_by_image():
    cells = [row("a", method="ptq", test_ssim=0.85), row("b", method="ptq", test_ssim=0.8495)]
    cells.append(row("c", method="ptq", test_ssim=0.848))
    assert best(cells, SSIM) == ("a", ["b"])


def test_what_a_test_does_not_tell_from_the_best_ties_with_it():
    evidence = measured({"a": 0.01, "b": 0.0098, "c": 0.005})
    assert best(evidence.rows, SSIM, evidence) == ("a", ["b"])
    noisy = measured({"a": 0.01, "b": 0.0098, "c": 0.005}, spread=0.02)
    assert best(noisy.rows, SSIM, noisy) == ("a", ["b", "c"]), "0.005 is not told apart"
    assert as_good(noisy.rows, SSIM, noisy) == ("a", ["b"]), "but it is no figure to take for the best either"


def test_a_real_difference_below_the_margin_is_a_tie():
    evidence = measured({"a": 0.0005, "b": 0.0}, spread=1e-5)
    assert best(evidence.rows, SSIM, evidence) == ("a", ["b"])
    strict = measured({"a": 0.0005, "b": 0.0}, spread=1e-5, margin=0.0)
    assert best(strict.rows, SSIM, strict) == ("a", [])


def test_latencies_are_told_apart_where_intervals_do_not_overlap_and_differ_by_more_than_the_margin():
    def timed(cell, low, middle, high):
        return row(cell, latency_ratio=middle, latency_ratio_low=low, latency_ratio_high=high)

    cells = [timed("a", 0.98, 1.0, 1.02), timed("b", 1.01, 1.05, 1.09), timed("c", 1.03, 1.05, 1.07)]
    assert best(cells, LATENCY) == ("a", ["b"])
    assert best([cells[0], timed("d", 1.021, 1.025, 1.03)], LATENCY) == ("a", ["d"])


def test_rank_groups_are_runs_of_the_ranking_in_which_no_pair_is_told_apart():
    shifts = {"a": 0.0, "b": 0.02, "c": 0.0201, "d": -0.03, "e": 0.0001}
    evidence = measured(shifts)
    assert rank_groups(evidence.rows, SSIM, evidence) == [("c", "b"), ("e", "a"), ("d",)]
    chain = measured({"a": 0.0, "b": 0.0008, "c": 0.0016}, spread=1e-5)
    assert rank_groups(chain.rows, SSIM, chain) == [("c", "b"), ("b", "a")], "a cell may be in two groups"
    assert rank_groups([], SSIM) == []


def test_the_pareto_front_leaves_out_what_another_cell_beats():
    def point(cell, ssim, size, ratio, spread=0.01):
        bounds = {"latency_ratio_low": ratio - spread, "latency_ratio_high": ratio + spread}
        return row(cell, method="ptq", test_ssim=ssim, size_mb=size, latency_ratio=ratio, **bounds)

    cells = [
        point("accurate", 0.90, 2.0, 1.0),
        point("small", 0.80, 1.0, 1.0),
        point("fast", 0.80, 2.0, 0.5),
        point("beaten", 0.85, 2.0, 1.2),
        point("tied", 0.8995, 2.001, 1.005),
        row("unmeasured", method="ptq", test_ssim=1.0),
    ]
    assert pareto_front(cells, (SSIM, SIZE, LATENCY)) == ["accurate", "small", "fast", "tied"]


def test_a_cell_is_beaten_in_accuracy_by_a_test_alone():
    shifts = {"best": 0.006, "worse": 0.0, "close": 0.0055}
    sure, unsure = measured(shifts), measured(shifts, spread=0.02)
    assert pareto_front(sure.rows, (SSIM, SIZE), sure) == ["best", "close"]
    assert pareto_front(unsure.rows, (SSIM, SIZE), unsure) == ["best", "worse", "close"]


def test_an_undecided_loss_of_more_than_the_margin_does_not_beat():
    evidence = measured({"large": 0.006, "small": 0.0}, spread=0.02)
    evidence.rows[1]["size_mb"] = 1.0
    assert pareto_front(evidence.rows, (SSIM, SIZE), evidence) == ["large", "small"], "smaller, but perhaps much worse"


@pytest.mark.parametrize("count", [2000])
def test_2000_cells_are_compared_in_seconds(count):
    evidence = measured({f"c{place}": 1e-5 * place for place in range(count)})
    started = time.perf_counter()
    assert "c1999" in pareto_front(evidence.rows, (SSIM, SIZE, LATENCY), evidence)
    assert best(evidence.rows, SSIM, evidence)
    assert time.perf_counter() - started < 20


def test_networks_of_one_timing_class_do_not_beat_each_other_in_latency():
    cells = [
        row("a", method="ptq", timing_class="x", **figures_of(0.90, 1.6, 2.0)),
        row("b", method="ptq", timing_class="x", **figures_of(0.90, 1.6, 2.5)),
        row("c", method="ptq", timing_class="x", **figures_of(0.80, 1.6, 1.5)),
    ]
    assert pareto_front(cells, (SSIM, SIZE, LATENCY)) == ["a", "b"]
