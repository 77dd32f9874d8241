"""A target picks the cell that a reader of the table would pick, and says what stood in the way of the others."""

import dataclasses

import numpy as np
import pytest

from grid.results.comparisons.comparison import compare
from grid.results.comparisons.evidence import Evidence
from grid.results.measures import measures_of
from grid.results.recommend import Recommendation, recommend
from grid.results.target import parse_target
from model.errors import InputError
from tests.grid.measures import METRICS, SSIM
from tests.grid.report.report_rows import figures_of, row
from tests.grid.results.comparisons.made_up_images import CLASSES, coarse, evidence_of, scenes_of


def cells(**figures: tuple[float, float, float]) -> list[dict]:
    """int8 rows by name: SSIM, MB, latency ratio."""
    return [
        row(name, method="ptq", fuse_bn=True, granularity="per_tensor", graph_hash=name, **figures_of(*three))
        for name, three in figures.items()
    ]


ROWS = cells(small=(0.80, 1.4, 2.5), quick=(0.81, 1.6, 2.0), good=(0.85, 1.6, 2.6), large=(0.86, 1.9, 2.7))


def chosen(text: str, rows: list[dict] = ROWS) -> str | None:
    return recommend(rows, parse_target(text)).cell


def told(text: str, rows: list[dict] = ROWS) -> str:
    return "\n".join(recommend(rows, parse_target(text)).reasons)


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("", "large"),
        ("maximize ssim", "large"),
        ("minimize size_mb", "small"),
        ("minimize latency", "quick"),
        ("ssim>=0.84, minimize latency", "good"),
        ("size_mb <= 1.7 , ssim>0.8", "good"),
        ("ssim>=0.80, size_mb<1.5, minimize latency", "small"),
        ("latency<=2.55,maximize ssim", "quick"),
    ],
)
def test_the_best_of_those_that_keep_all_bounds_is_taken(text, cell):
    assert chosen(text) == cell


def test_what_ties_is_told_apart_by_the_next_measure():
    rows = cells(a=(0.8500, 1.4, 2.5), b=(0.8504, 1.3, 2.5), c=(0.8506, 1.4, 2.0))
    assert chosen("maximize ssim", rows) == "b", "an SSIM tie, then the smallest"
    assert "SSIM" not in told("maximize ssim", rows).split("Decided by")[1]
    same = cells(a=(0.8500, 1.4, 2.5), b=(0.8504, 1.4, 2.5))
    assert chosen("minimize size_mb", same) == "b"
    assert "A tie in all of them with `a`" in told("minimize size_mb", same)


def test_one_network_under_two_names_is_no_tie():
    rows = cells(a=(0.85, 1.4, 2.5), b=(0.85, 1.4, 2.5))
    rows[1]["same_as"] = "a"
    assert "tie" not in told("maximize ssim", rows)


def test_the_nearest_rejected_cell_is_told_with_its_misses():
    assert "Nearest rejected: `large`, size_mb 1.9 misses size_mb<=1.7 by 0.2." in told("size_mb<=1.7")
    assert "rejected" not in told("size_mb<=2")


def test_a_target_that_nobody_meets_says_what_fails_by_how_much():
    assert chosen("ssim>=0.9") is None
    assert "No cell keeps ssim>=0.9: best is `large`, ssim 0.86 misses ssim>=0.9 by 0.04." in told("ssim>=0.9")
    both = "ssim>=0.85, size_mb<=1.5"
    assert chosen(both) is None
    assert "Each bound is kept by some cell, all of them together by none." in told(both)
    assert "Nearest to all: `small`, ssim 0.8 misses ssim>=0.85 by 0.05." in told(both)


def test_a_missing_figure_keeps_no_bound_and_no_figures_at_all_are_said():
    rows = cells(a=(0.85, 1.4, 2.5), b=(0.8, 1.4, 2.0))
    rows[1]["latency_ratio"] = None
    assert chosen("latency<=3, minimize latency", rows) == "a"
    assert "no figure for latency" in told("latency<=3", rows)
    assert recommend([], parse_target("")).reasons == ("No int8 network was measured.",)


def test_failed_cells_and_float_networks_are_not_chosen_but_a_better_float_network_is_told():
    fp32 = row("fp32-fuse_bn", method="fp32", fuse_bn=True, **figures_of(0.87, 4.9, 0.9))
    failed = dict(cells(f=(0.99, 1.0, 1.0))[0], status="failed")
    assert chosen("minimize latency", [fp32, failed, *ROWS]) == "quick"
    assert "float network `fp32-fuse_bn` keeps the bounds too and is better in latency: 0.9" in told(
        "minimize latency", [fp32, *ROWS]
    )
    assert "float" not in told("size_mb<=1.7, minimize latency", [fp32, *ROWS])


def test_seeds_count_as_one_cell_with_their_means():
    rows = cells(**{"a-s0": (0.80, 1.4, 2.5), "a-s1": (0.90, 1.4, 2.5), "b-s0": (0.86, 1.4, 2.5)})
    rows += cells(**{"b-s1": (0.87, 1.4, 2.5)})
    assert chosen("ssim>=0.855", rows) == "b"


def test_the_front_of_accuracy_size_and_latency_stands_beside_it():
    assert recommend(ROWS, parse_target("")).front == ("small", "quick", "good", "large")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sim>=0.8", ("'sim'", "ssim")),
        ("ssim=>0.8", ("'ssim=>0.8'", "METRIC>=NUMBER")),
        ("ssim>=good", ("'ssim>=good'", "finite number")),
        ("ssim>=nan", ("finite number",)),
        ("minimize ssim", ("worst", "maximize ssim")),
        ("minimize latency, maximize ssim", ("latency and ssim", "one objective")),
        ("minimize speed", ("'speed'", "latency_ms")),
        ("best", ("'best'",)),
    ],
)
def test_bad_targets_are_told_with_the_part_that_is_wrong(text, words):
    with pytest.raises(InputError) as caught:
        parse_target(text)
    assert str(caught.value).startswith("--target")
    assert all(word in str(caught.value) for word in words)


def test_a_target_reads_back_as_it_is_written():
    text = "ssim>=0.8, size_mb<=1.7, minimize latency"
    assert str(parse_target(text)) == text
    assert all(str(parse_target(f"{name}>=1")).startswith(name) for name in METRICS)


# ---- validation chooses, the test images report


def judged(shifts: dict[str, float], spread: float = 3e-4, scenes: int = 32, **given: dict) -> Evidence:
    """int8 cells whose SSIMs differ by these shifts; ``given`` are further columns by cell."""
    noise, scene = np.random.default_rng(0), scenes_of(scenes)
    common = 0.85 + noise.normal(0, 0.02, scenes)[scene]
    common += 0.85 - common.mean()
    rows, ssim = [], {}
    for name, shift in shifts.items():
        own = noise.normal(0, spread, scenes)[scene]
        line = cells(**{name: (0.8, 1.4, 2.5)})[0] | {"method": "qat"}
        rows.append(line | given.get(name, {}))
        ssim[name] = common + shift + own - own.mean()
    return evidence_of(rows, ssim, scene)


def answer(evidence: Evidence, text: str = "maximize ssim") -> Recommendation:
    return recommend(evidence.rows, parse_target(text), evidence)


def test_validation_chooses_and_the_test_figure_stands_beside_it_once():
    rows = cells(a=(0.90, 1.4, 2.5), b=(0.80, 1.4, 2.5))
    rows = [one | {"val_ssim": ssim} for one, ssim in zip(rows, (0.82, 0.86), strict=True)]
    found = recommend(rows, parse_target("ssim>=0.85"))
    assert found.cell == "b", "the test set would have said `a`"
    assert "ssim 0.86 (validation; test 0.8)" in found.reasons[0]
    assert "Nearest rejected: `a`, ssim 0.82 misses ssim>=0.85 by 0.03." in found.reasons
    assert "no validation figures" not in "\n".join(found.reasons)
    assert "There are no validation figures" in told("maximize ssim"), "those of earlier versions"


def test_among_what_is_as_good_the_recipe_without_training_is_taken_and_that_is_said():
    evidence = judged({"trained": 0.0004, "plain": 0.0, "poor": -0.01}, plain={"method": "ptq"}, poor={"method": "ptq"})
    found = answer(evidence)
    assert found.cell == "plain"
    said = "\n".join(found.reasons)
    assert "It needs no training, and 1 trained cells are no better by a test" in said
    assert "Against the best estimate in SSIM, `trained`: -0.0004 [" in said
    assert "equivalent" in said
    assert answer(judged({"trained": 0.004, "plain": 0.0}, plain={"method": "ptq"})).cell == "trained"


def test_what_is_undecided_but_looks_worse_by_more_than_the_margin_is_not_taken_for_its_size():
    evidence = judged({"good": 0.005, "small": 0.0}, spread=0.02, small={"size_mb": 1.0})
    assert answer(evidence).cell == "good"
    near = judged({"good": 0.0005, "small": 0.0}, spread=0.02, small={"size_mb": 1.0})
    assert answer(near).cell == "small"


def test_an_undecided_loss_beyond_the_margin_is_taken_where_the_interval_bounds_it():
    bounded = judged({"good": 0.0012, "small": 0.0}, spread=0.0015, small={"size_mb": 1.0})
    (tested,) = compare(bounded, [("small", "good")], SSIM)
    assert tested.verdict == "undecided"
    assert -0.003 < (tested.low or -1.0) < tested.estimate < -0.001
    assert answer(bounded).cell == "small"


def test_a_bound_that_the_interval_keeps_goes_before_one_that_the_estimate_keeps():
    evidence = judged({"sure": 0.03, "close": 0.0, "out": -0.03}, close={"size_mb": 1.0})
    found = answer(evidence, "ssim>=0.849, minimize size_mb")
    assert found.cell == "sure"
    assert found.reasons[0].startswith("1 of 3 int8 cells keep ssim>=0.849: it has")
    assert "Passed over, as their intervals reach beyond a bound: `close`." in found.reasons
    probably = answer(evidence, "ssim>=0.879, minimize size_mb")
    assert probably.reasons[0].startswith("1 of 3 int8 cells probably keep ssim>=0.879: it has")
    assert answer(evidence, "ssim>=0.89").cell is None


def test_training_that_changed_nothing_never_wins_over_its_own_start():
    def found(**columns: float) -> Recommendation:
        shifts = {"start": 0.0, "tuned": 0.004}
        tuned = {"method": "ptq+qat", "weights_changed": 0.3, "best_epoch": 2.0} | columns
        return answer(judged(shifts, start={"method": "ptq"}, tuned=tuned))

    assert found().cell == "tuned"
    for column in ("weights_changed", "best_epoch"):
        assert found(**{column: 0.0}).cell == "start"
        assert "its start under another name: `tuned`." in "\n".join(found(**{column: 0.0}).reasons)
    alone = judged({"tuned": 0.0}, tuned={"method": "ptq+qat", "weights_changed": 0.0})
    assert answer(alone).cell == "tuned", "there is no other"


def test_the_network_to_ship_keeps_the_bounds_itself():
    shifts = {"a-s0": -0.03, "a-s1": 0.05, "a-s2": 0.03, "b-s0": -0.05, "b-s1": -0.05, "b-s2": -0.05}
    evidence = judged(shifts, spread=1e-5, **{name: {"seed": int(name[-1])} for name in shifts})
    found = answer(evidence, "ssim>=0.845")
    assert (found.cell, found.ships, found.refusal) == ("a", "a-s1", "")
    assert "The network to ship is `a-s1`." in found.reasons
    both = judged({"a-s0": 0.02, "a-s1": 0.0}, **{
        "a-s0": {"seed": 0, "size_mb": 2.0}, "a-s1": {"seed": 1, "size_mb": 1.0}
    })  # fmt: skip
    none = answer(both, "ssim>=0.859, size_mb<=1.6")
    assert (none.cell, none.ships) == ("a", None), "their means keep both bounds, and no network does"
    assert none.refusal == "no network of a keeps ssim>=0.859, size_mb<=1.6, maximize ssim by itself"


def test_seeds_and_cells_that_failed_are_counted():
    rows = cells(**{"a-s0": (0.80, 1.4, 2.5), "a-s1": (0.81, 1.4, 2.5), "a-s2": (0.9, 1.4, 2.5)})
    rows[2] |= {"status": "failed"}
    rows += [row("b-s0", method="qat", status="skipped"), row("c-s0", method="qat", status="excluded")]
    found = "\n".join(recommend(rows, parse_target("")).reasons)
    assert "Its figures are those of 2 of 3 seeds." in found
    assert "Of 4 int8 cells 1 failed and 1 were skipped: nothing is known of them." in found


def test_networks_of_one_timing_class_are_not_told_apart_by_latency():
    rows = cells(a=(0.85, 1.4, 2.0), b=(0.8501, 1.4, 2.5))
    assert chosen("maximize ssim", rows) == "a"
    assert chosen("maximize ssim", [one | {"timing_class": "x"} for one in rows]) == "b"


# ---- a headline too coarse to choose with


def test_what_a_coarse_headline_does_not_tell_apart_is_told_apart_by_the_monitor():
    evidence = coarse(dataclasses.replace(CLASSES, monitor=""))
    assert recommend(evidence.rows, parse_target("", evidence.measures), evidence).cell == "noisy"
    evidence = coarse()
    for text in ("", "maximize top1", "minimize latency"):
        found = recommend(evidence.rows, parse_target(text, measures_of(CLASSES)), evidence)
        assert found.cell == "close"
        assert "Decided by entropy (1 of 2 left)" in "\n".join(found.reasons)
    assert "entropy 0.6" in found.reasons[0]
