"""Comparisons of cells: redraws of one recipe are no finding, real differences are found, seeds sharpen."""

import numpy as np
import pytest

from grid.results.comparisons.comparison import ESTIMATES, NETWORKS, RECIPES, against_float, compare
from grid.results.comparisons.draws import draws
from grid.results.comparisons.evidence import Evidence
from grid.results.ranking import LATENCY, SIZE, SQNR
from tests.grid.measures import MSE, SSIM
from tests.grid.report.report_rows import figures_of, row
from tests.grid.results.comparisons.made_up_images import evidence_of, null_recipes, scenes_of

REDRAW = 0.0005


def figures(seed: int, scenes: int = 40, spread: float = 0.001) -> np.ndarray:
    """Differences by image, their mean 0, that go with the scene and with the image."""
    noise = np.random.default_rng(seed)
    moved = noise.normal(0, spread, scenes)[scenes_of(scenes)] + noise.normal(0, spread, 4 * scenes)
    return moved - moved.mean()


def common(scenes: int = 40) -> np.ndarray:
    return 0.8 + figures(99, scenes, 0.05)


@pytest.mark.parametrize("scenes", [16, 48, 128])
def test_recipes_that_differ_in_a_redraw_alone_are_told_apart_in_at_most_5_percent(scenes):
    words = []
    for seed in range(6):
        evidence = null_recipes(count=60, seeds=2, scenes=scenes, redraw=REDRAW, seed=seed)
        pairs = [(f"r{place}", f"r{place + 1}") for place in range(0, 60, 2)]
        words += [compare(evidence, [pair], SSIM)[0] for pair in pairs]
    assert {found.scope for found in words} == {RECIPES}
    assert sum(found.verdict in ("better", "worse") for found in words) <= 0.05 * len(words)


def test_a_difference_of_twice_the_half_width_is_found_in_80_percent_and_in_its_direction():
    evidence = null_recipes(count=60, seeds=2, scenes=32, redraw=REDRAW, seed=1)
    (first, *_) = compare(evidence, [("r0", "r1")], SSIM)
    half = first.estimate - (first.low or 0.0)
    sample = evidence.tables.sample("test")
    ssim = {name: sample.figures["ssim"][place] for name, place in sample.cells.items()}
    better = {name: values + 2 * half * (int(name[1:].split("-")[0]) % 2) for name, values in ssim.items()}
    planted = evidence_of(evidence.rows, better, sample.scene, margin=0.0)
    words = [compare(planted, [(f"r{place + 1}", f"r{place}")], SSIM)[0].verdict for place in range(0, 60, 2)]
    assert words.count("better") >= 24
    assert "worse" not in words


def test_more_seeds_sharpen_a_verdict():
    def half(seeds: int) -> float:
        found = [null_recipes(6, seeds, 32, REDRAW, seed) for seed in range(8)]
        tests = [compare(evidence, [("r0", "r1")], SSIM)[0] for evidence in found]
        return float(np.median([test.estimate - (test.low or 0.0) for test in tests]))

    two, five, ten = half(2), half(5), half(10)
    assert ten < five < two
    assert ten < two / 1.7


def test_with_one_seed_the_networks_are_compared_and_not_the_recipes():
    rows = [row("a", method="qat", graph_hash="a"), row("b", method="qat", graph_hash="b")]
    ssim = {"a": common() + 0.002 + figures(1), "b": common() + figures(2)}
    (found,) = compare(evidence_of(rows, ssim, scenes_of(40)), [("a", "b")], SSIM)
    assert (found.verdict, found.scope, found.scenes, found.images) == ("better", NETWORKS, 40, 160)
    assert found.estimate == pytest.approx(0.002)


def test_null_twins_tell_what_a_redraw_of_ptq_moves():
    def cell(name, fuse_bn, granularity, method="ptq"):
        return row(name, method=method, fuse_bn=fuse_bn, granularity=granularity, graph_hash=name)

    rows = [
        cell("a", False, "per_channel"), cell("fuse_bn-a", True, "per_channel"),
        cell("b", False, "per_tensor"), cell("fuse_bn-b", True, "per_tensor"),
        cell("q", False, "per_channel", "qat"), cell("fuse_bn-q", True, "per_channel", "qat"),
    ]  # fmt: skip
    shifts = {"a": 0.0, "fuse_bn-a": 0.004, "b": 0.001, "fuse_bn-b": 0.003, "q": 0.0, "fuse_bn-q": 0.03}
    ssim = {name: common() + shift + figures(place) for place, (name, shift) in enumerate(shifts.items())}
    evidence = evidence_of(rows, ssim, scenes_of(40))
    known = draws(evidence.rows, "test_ssim").by_kind
    assert set(known) == {("ptq", "")}, "QAT with live BatchNorm is another recipe, not a redraw"
    assert known["ptq", ""].variance == pytest.approx((0.004**2 + 0.002**2) / 4)
    assert known["ptq", ""].degrees_of_freedom == 2
    twins, methods = compare(evidence, [("fuse_bn-a", "a")], SSIM)[0], compare(evidence, [("q", "a")], SSIM)[0]
    assert (twins.scope, twins.verdict) == (RECIPES, "undecided")
    assert twins.needed.seeds, "redraws dominate: images would not decide"
    assert methods.scope == NETWORKS


def test_the_same_network_is_equivalent_whatever_moves():
    rows = [row(name, method="ptq", graph_hash="x") for name in ("a", "b")]
    same = common() + figures(1)
    (found,) = compare(evidence_of(rows, {"a": same, "b": same}, scenes_of(40), margin=0.0), [("a", "b")], SSIM)
    assert (found.verdict, found.same_network, found.low, found.high) == ("equivalent", True, 0.0, 0.0)


def test_cells_that_differ_in_the_engine_alone_are_one_draw():
    rows = [
        row(f"{engine}-s{seed}", method="ptq", engine=engine, seed=seed, graph_hash=f"{engine}{seed}")
        for engine in ("qnnpack", "xnnpack")
        for seed in range(3)
    ]
    draw = {seed: shift + figures(seed) for seed, shift in enumerate((0.0, 0.01, -0.01))}
    moved = {"qnnpack": 0.0, "xnnpack": 0.003}
    ssim = {one["cell"]: common() + draw[one["seed"]] + moved[one["engine"]] + figures(9, spread=1e-4) for one in rows}
    (found,) = compare(evidence_of(rows, ssim, scenes_of(40)), [("xnnpack", "qnnpack")], SSIM)
    assert (found.verdict, found.scope) == ("better", RECIPES)


def test_an_interval_within_the_margin_is_equivalent_even_where_it_excludes_0():
    rows = [row("a", method="qat", graph_hash="a"), row("b", method="qat", graph_hash="b")]
    ssim = {"a": common() + 0.0005 + figures(1, spread=1e-4), "b": common()}
    (found,) = compare(evidence_of(rows, ssim, scenes_of(40)), [("a", "b")], SSIM)
    assert found.verdict == "equivalent"
    assert 0 < (found.low or 0.0) < (found.high or 0.0) < found.margin
    (strict,) = compare(evidence_of(rows, ssim, scenes_of(40), margin=0.0), [("a", "b")], SSIM)
    assert strict.verdict == "better"


def test_intervals_widen_with_the_number_of_comparisons_in_a_family():
    names = [f"c{place}" for place in range(12)]
    rows = [row(name, method="qat", graph_hash=name) for name in names]
    evidence = evidence_of(rows, {name: common() + figures(place) for place, name in enumerate(names)}, scenes_of(40))
    (alone,) = compare(evidence, [("c1", "c0")], SSIM)
    family = compare(evidence, [(name, "c0") for name in names[1:]], SSIM)
    assert (family[0].high or 0.0) - (family[0].low or 0.0) > 1.3 * ((alone.high or 0.0) - (alone.low or 0.0))


def test_every_int8_network_is_compared_with_the_float_network_that_it_started_from():
    axis = {"train.epochs": 1}, {"train.epochs": 2}
    rows = [row(f"fp32-{place}", method="fp32", fuse_bn=False, engine=None, **one) for place, one in enumerate(axis)]
    rows += [row(f"ptq-{place}", method="ptq", graph_hash=str(place), **one) for place, one in enumerate(axis)]
    rows += [row("copy", method="qat", graph_hash="0", same_as="ptq-0", **axis[0])]
    ssim = {one["cell"]: common() + figures(place) for place, one in enumerate(rows)}
    found = against_float(evidence_of(rows, ssim, scenes_of(40)), SSIM)
    assert [(one.cell, one.other) for one in found] == [("ptq-0", "fp32-0"), ("ptq-1", "fp32-1")]


def test_float_networks_that_are_trained_with_each_seed_are_no_redraw_of_the_recipe():
    noise, rows, ssim = np.random.default_rng(0), [], {}
    for seed in range(4):
        trained = common() + noise.normal(0, 0.02)
        rows.append(row(f"fp32-s{seed}", method="fp32", fuse_bn=False, engine=None, seed=seed, train_s=9.0))
        rows.append(row(f"ptq-s{seed}", method="ptq", seed=seed, graph_hash=str(seed)))
        ssim[f"fp32-s{seed}"] = trained
        ssim[f"ptq-s{seed}"] = trained - 0.005 + noise.normal(0, 0.0003) + figures(seed, spread=3e-4)
    (found,) = against_float(evidence_of(rows, ssim, scenes_of(40)), SSIM)
    assert (found.cell, found.other, found.verdict, found.scope) == ("ptq", "fp32", "worse", RECIPES)


def test_without_figures_by_image_nothing_is_tested():
    rows = [row("a", method="ptq", test_ssim=0.9), row("b", method="ptq", test_ssim=0.8)]
    (found,) = compare(Evidence(rows), [("a", "b")], SSIM)
    assert (found.verdict, found.scope, found.low, found.scenes) == ("undecided", ESTIMATES, None, 0)
    assert found.gain == pytest.approx(0.1)
    assert compare(Evidence(rows), [("a", "b")], MSE) == [], "and without figures nothing is compared"


def test_images_of_one_scene_decide_nothing():
    rows = [row("a", method="ptq", graph_hash="a"), row("b", method="ptq", graph_hash="b")]
    ssim = {"a": common(10) + 0.01, "b": common(10)}
    (found,) = compare(evidence_of(rows, ssim, np.zeros(40, dtype=int)), [("a", "b")], SSIM)
    assert (found.verdict, found.scope, found.low, found.scenes) == ("undecided", ESTIMATES, None, 1)


def test_sizes_are_exact_and_latencies_have_intervals_and_classes():
    rows = [row(name, method="ptq", graph_hash=name, **figures_of(0.8, size, ratio)) for name, size, ratio in (
        ("a", 1.600, 2.00), ("b", 1.605, 2.03), ("c", 1.400, 2.50), ("d", 1.4, 2.01)
    )]  # fmt: skip
    rows[2]["timing_class"] = rows[3]["timing_class"] = "one"
    evidence = Evidence(rows)
    words = {
        measure.key: [found.verdict for found in compare(evidence, [("b", "a"), ("c", "a"), ("d", "c")], measure)]
        for measure in (SIZE, LATENCY)
    }
    assert words["size_mb"] == ["equivalent", "better", "equivalent"]
    assert words["latency"] == ["undecided", "worse", "equivalent"], "one class is one latency"


def test_decibels_are_those_of_the_rows_and_their_difference_is_tested():
    rows = [row(name, method="ptq", graph_hash=name) for name in ("a", "b")]
    evidence = evidence_of(rows, {name: common() for name in ("a", "b")}, scenes_of(40))
    sample, noise = evidence.tables.sample("test"), np.random.default_rng(0).gamma(4.0, 1e-5, 160)
    sample.figures["noise_mse"] = np.stack([noise, 10**0.3 * noise])  # type: ignore[index]
    for line, decibels in zip(evidence.rows, (33.0, 30.0), strict=True):
        line["sqnr_db"] = decibels
    (found,) = compare(evidence, [("a", "b")], SQNR)
    assert (found.verdict, found.estimate) == ("better", pytest.approx(3.0))
    assert (found.high or 0) - (found.low or 0) == pytest.approx(0.0, abs=1e-6)


def test_a_float_network_that_is_trained_further_is_a_draw_too_and_the_root_is_none():
    rows = [row("fp32", method="fp32", fuse_bn=False, engine=None, train_s=0.0)]
    rows += [
        row(f"{name}-s{seed}", method=method, fuse_bn=True, seed=seed, train_s=50.0, sqnr_db=30.0)
        for name, method in (("fp32-finetuned", "fp32"), ("qat", "qat"))
        for seed in range(3)
    ]  # fmt: skip
    moved = {"fp32": 0.0} | {one["cell"]: 0.01 * (one["seed"] - 1) for one in rows[1:]}
    ssim = {name: common() + shift + figures(place) for place, (name, shift) in enumerate(moved.items())}
    evidence = evidence_of(rows, ssim, scenes_of(40))
    known = draws(evidence.rows, "test_ssim")
    assert {kind[0]: spread.variance for kind, spread in known.by_kind.items()} == {
        "fp32": pytest.approx(1e-4), "qat": pytest.approx(1e-4)
    }  # fmt: skip
    assert known.of_float is None
    (found,) = compare(evidence, [("qat", "fp32-finetuned")], SSIM)
    assert (found.scope, found.verdict) == (RECIPES, "undecided")
    assert (found.high or 0.0) > 2 * np.sqrt(2 * 1e-4 / 3)
