"""A target picks the cell that a reader of the table would pick, and says what stood in the way of the others."""

import pytest

from grid.results.recommend import recommend
from grid.results.target import METRICS, parse_target
from model.errors import InputError
from tests.grid.report.report_rows import figures_of, row


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
