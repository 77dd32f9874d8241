"""What an axis does is judged by cells that differ in it alone, by image and by scene, and by whether they agree."""

import itertools

import numpy as np
import pytest

from grid.results.comparisons.comparison import ESTIMATES, NETWORKS, RECIPES
from grid.results.effects import MOST_VALUES, Effect, compared_values, effects, verdict
from tests.grid.report.report_rows import row
from tests.grid.results.comparisons.made_up_images import evidence_of, scenes_of


def grid(shift, draw: float = 0.0, seeds: int = 1, seed: int = 0) -> dict[str, Effect]:
    """The effects by axis of a grid of 2 x 2 x 2 qat cells; ``shift`` of (fuse_bn, granularity, epochs) is its SSIM."""
    noise, scene = np.random.default_rng(seed), scenes_of(32)
    common = 0.8 + noise.normal(0, 0.05, 32)[scene]
    rows, ssim = [], {}
    for number in range(8 * seeds):
        fuse_bn, granularity, epochs, place = number % 2, number // 2 % 2, number // 4 % 2, number // 8
        cell = f"{fuse_bn}{granularity}{epochs}-s{place}"
        settings = {"fuse_bn": bool(fuse_bn), "granularity": str(granularity), "qat.epochs": epochs, "seed": place}
        rows.append(row(cell, method="qat", graph_hash=cell, **settings))
        own = noise.normal(0, draw) + noise.normal(0, 3e-4, 32)[scene] + noise.normal(0, 3e-4, 128)
        ssim[cell] = common + shift(fuse_bn, granularity, epochs) + own
    evidence = evidence_of(rows, ssim, scene)
    return {effect.axis: effect for effect in effects(evidence.rows, evidence)}


def test_an_axis_is_judged_by_cells_that_differ_in_it_alone():
    rows = [
        row("a", method="ptq", fuse_bn=False, granularity="per_channel", test_ssim=0.80, sqnr_db=20.0),
        row("b", method="ptq", fuse_bn=True, granularity="per_channel", test_ssim=0.82, sqnr_db=21.0),
        row("c", method="qat", fuse_bn=True, granularity="per_channel", test_ssim=0.90, sqnr_db=30.0),
        row("d", method="qat", fuse_bn=True, granularity="per_tensor", seed=1, test_ssim=0.1, sqnr_db=3.0),
        row("fp32", method="fp32", fuse_bn=False, test_ssim=0.99),
        row("fp32-fuse_bn", method="fp32", fuse_bn=True, test_ssim=0.99),
    ]
    found = {(effect.axis, effect.start, effect.to): effect for effect in effects(rows)}
    assert set(found) == {("fuse_bn", False, True), ("method", "ptq", "qat")}
    assert found["fuse_bn", False, True].headline == pytest.approx((0.02,))
    assert found["method", "ptq", "qat"].sqnr_db == pytest.approx((9.0,))
    assert found["method", "ptq", "qat"].tests["ssim"].scope == ESTIMATES
    assert verdict(found["method", "ptq", "qat"]) == "undecided: no figures by image"


def test_an_axis_is_judged_by_size_and_latency_too():
    rows = [
        row(
            f"{fuse_bn}-{granularity}", method="ptq", fuse_bn=fuse_bn, granularity=granularity, test_ssim=0.8,
            size_mb=1.6 - 0.25 * (granularity == "per_tensor"), latency_ratio=2.0 + 0.5 * fuse_bn,
        )
        for fuse_bn in (False, True)
        for granularity in ("per_channel", "per_tensor")
    ]  # fmt: skip
    found = {effect.axis: effect for effect in effects(rows)}
    assert found["granularity"].size_mb == pytest.approx((-0.25,) * 2)
    assert found["granularity"].latency_ratio == pytest.approx((0.0,) * 2)
    assert found["fuse_bn"].latency_ratio == pytest.approx((0.5,) * 2)


def test_an_axis_that_changes_no_network_is_no_finding():
    rows = [
        row("a", method="ptq", fuse_bn=False, test_ssim=0.8, graph_hash="x"),
        row("b", method="ptq", fuse_bn=True, test_ssim=0.8, graph_hash="x", same_as="a"),
    ]
    (effect,) = effects(rows)
    assert (effect.pairs, effect.identical) == (1, 1)
    assert "the same" in verdict(effect)


def test_a_step_that_helps_all_pairs_is_better_and_one_that_does_nothing_is_equivalent():
    found = grid(lambda fuse_bn, granularity, epochs: 0.004 * epochs)
    test = found["qat.epochs"].tests["ssim"]
    assert (test.verdict, test.depends, test.scope) == ("better", False, NETWORKS)
    assert test.estimate == pytest.approx(0.004, abs=2e-4)
    assert (test.low or 0) < test.estimate < (test.high or 0)
    assert verdict(found["qat.epochs"]) == "better, of these networks"
    assert verdict(found["fuse_bn"]) == verdict(found["granularity"]) == "equivalent (within 0.001)"


def test_pairs_that_disagree_by_a_test_are_said_to_depend_on_the_other_axes():
    found = grid(lambda fuse_bn, granularity, epochs: 0.004 * epochs * (1 - 2 * granularity))
    assert found["qat.epochs"].tests["ssim"].depends
    assert "depends on the other axes" in verdict(found["qat.epochs"])
    assert not found["fuse_bn"].tests["ssim"].depends


def test_with_seeds_redraws_are_known_and_a_step_is_one_of_recipes():
    found = grid(lambda fuse_bn, granularity, epochs: 0.004 * epochs, draw=0.001, seeds=4)
    assert found["qat.epochs"].tests["ssim"].scope == RECIPES
    assert verdict(found["qat.epochs"]) == "better"


def test_an_axis_that_only_draws_again_is_found_in_at_most_5_percent():
    none = [grid(lambda *_: 0.0, draw=0.003, seeds=3, seed=seed) for seed in range(20)]
    words = [effect.tests["ssim"].verdict for found in none for effect in found.values()]
    assert len(words) == 60
    assert words.count("better") + words.count("worse") <= 3


def test_the_mean_over_pairs_is_surer_than_one_pair():
    found = grid(lambda *_: 0.0, draw=0.001, seeds=3)["fuse_bn"]
    test = found.tests["ssim"]
    assert (test.high or 0) - test.estimate < 3 * float(np.std(found.headline)) / np.sqrt(len(found.headline)) * 1.5


def test_engines_run_one_draw_and_their_pairs_are_no_further_evidence_on_redraws():
    def half(engines: int) -> float:
        noise, scene = np.random.default_rng(3), scenes_of(32)
        rows, ssim = [], {}
        for seed in range(3):
            for granularity in ("per_channel", "per_tensor"):
                draw = noise.normal(0, 0.002)
                for engine in ("qnnpack", "xnnpack", "onnxruntime")[:engines]:
                    cell = f"{granularity}-{engine}-s{seed}"
                    rows.append(
                        row(cell, method="ptq", granularity=granularity, engine=engine, seed=seed, graph_hash=cell)
                    )
                    ssim[cell] = 0.8 + draw + 1e-6 * np.random.default_rng(len(rows)).normal(size=128)
        evidence = evidence_of(rows, ssim, scene)
        test = next(one for one in effects(evidence.rows, evidence) if one.axis == "granularity").tests["ssim"]
        return (test.high or 0.0) - test.estimate

    assert half(3) > 0.8 * half(1)


def test_of_few_values_all_pairs_are_compared():
    values = list(range(MOST_VALUES))
    assert compared_values(values) == list(itertools.combinations(values, 2))


def test_of_very_many_values_the_first_is_compared_with_others_spread_over_the_rest():
    rows = [
        row(f"c{number}", method="ptq", fuse_bn=True, test_ssim=0.9, graph_hash=str(number), **{"qat.epochs": number})
        for number in range(1000)
    ]
    pairs = [(effect.start, effect.to) for effect in effects(rows)]
    assert pairs == compared_values(list(range(1000)))
    assert len(set(pairs)) == MOST_VALUES
    assert {start for start, _ in pairs} == {0}
    assert (pairs[0][1], pairs[-1][1]) == (1, 999)
