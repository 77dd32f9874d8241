"""The rules of ranking: ties are ties, effects come from pairs that differ in one thing, fronts respect noise."""

import pytest

from grid.results import ranking
from tests.grid.report.report_rows import row


def test_ssim_within_a_thousandth_is_a_tie_and_beyond_it_is_not():
    cells = [row("a", method="ptq", test_ssim=0.85), row("b", method="ptq", test_ssim=0.8495)]
    cells.append(row("c", method="ptq", test_ssim=0.848))
    assert ranking.best(cells, ranking.SSIM) == ("a", ["b"])
    assert ranking.best(cells, ranking.SSIM, noise=0.003) == ("a", ["b", "c"])


def test_latencies_tie_only_where_their_intervals_overlap():
    def timed(cell, low, middle, high):
        return row(cell, latency_ratio=middle, latency_ratio_low=low, latency_ratio_high=high)

    cells = [timed("a", 0.98, 1.0, 1.02), timed("b", 1.01, 1.05, 1.09), timed("c", 1.03, 1.05, 1.07)]
    assert ranking.best(cells, ranking.LATENCY) == ("a", ["b"])


def test_an_axis_is_judged_by_cells_that_differ_in_it_alone():
    rows = [
        row("a", method="ptq", fuse_bn=False, granularity="per_channel", test_ssim=0.80, sqnr_db=20.0),
        row("b", method="ptq", fuse_bn=True, granularity="per_channel", test_ssim=0.82, sqnr_db=21.0),
        row("c", method="qat", fuse_bn=True, granularity="per_channel", test_ssim=0.90, sqnr_db=30.0),
        row("d", method="qat", fuse_bn=True, granularity="per_tensor", seed=1, test_ssim=0.1, sqnr_db=3.0),
        row("fp32", method="fp32", fuse_bn=False, test_ssim=0.99),
        row("fp32-fuse_bn", method="fp32", fuse_bn=True, test_ssim=0.99),
    ]
    found = {(effect.axis, effect.start, effect.to): effect for effect in ranking.effects(rows)}
    assert set(found) == {("fuse_bn", False, True), ("method", "ptq", "qat")}
    assert found["fuse_bn", False, True].ssim == pytest.approx((0.02,))
    assert found["method", "ptq", "qat"].sqnr_db == pytest.approx((9.0,))


def test_an_axis_is_judged_by_size_and_latency_too_and_by_an_interval_from_three_pairs_on():
    rows = [
        row(
            f"{fuse_bn}-{granularity}-{method}", method=method, fuse_bn=fuse_bn, granularity=granularity,
            test_ssim=0.8 + 0.01 * shift * (granularity == "per_tensor") + 0.05 * fuse_bn,
            size_mb=1.6 - 0.25 * (granularity == "per_tensor"), latency_ratio=2.0 + 0.5 * fuse_bn,
        )
        for fuse_bn in (False, True)
        for shift, method in ((1, "ptq"), (2, "qat"), (3, "ptq+qat"))
        for granularity in ("per_channel", "per_tensor")
    ]  # fmt: skip
    found = {effect.axis: effect for effect in ranking.effects(rows) if effect.axis != "method"}
    assert found["granularity"].size_mb == pytest.approx((-0.25,) * 6)
    assert found["granularity"].latency_ratio == pytest.approx((0.0,) * 6)
    assert found["fuse_bn"].latency_ratio == pytest.approx((0.5,) * 6)
    # Six differences, 0.01, 0.02 and 0.03 twice each: mean 0.02, deviation sqrt(4e-4 / 5) = 0.0089443.
    half = 2.5706 * 0.0089443 / 6**0.5
    assert found["granularity"].ssim_interval == pytest.approx((0.02 - half, 0.02 + half), abs=1e-6)
    assert ranking.effects(rows[:4])[0].ssim_interval is None, "two pairs are too few"


def test_an_axis_that_changes_no_network_is_no_finding():
    rows = [
        row("a", method="ptq", fuse_bn=False, test_ssim=0.8, graph_hash="x"),
        row("b", method="ptq", fuse_bn=True, test_ssim=0.8, graph_hash="x", same_as="a"),
    ]
    (effect,) = ranking.effects(rows)
    assert (effect.pairs, effect.identical) == (1, 1)
    assert "the same" in ranking.verdict(effect)


@pytest.mark.parametrize(
    ("differences", "said"),
    [
        ((0.0005, -0.0009), "within noise"),
        ((0.01, 0.02), "better in 2 of 2"),
        ((-0.01, 0.0001), "worse in 1 of 2"),
        ((0.01, -0.02), "depends"),
    ],
)
def test_the_verdict_on_an_axis_claims_no_more_than_its_pairs_show(differences, said):
    effect = ranking.Effect("fuse_bn", False, True, differences, (), 2, 0, noise=0.001)
    assert said in ranking.verdict(effect)


def test_further_axes_are_found_in_dotted_columns_and_not_averaged_away():
    rows = [
        row(f"{fuse_bn}-qat-qat.epochs={epochs}", method="qat", fuse_bn=fuse_bn, test_ssim=0.1 * epochs)
        | {"qat.epochs": epochs}
        for fuse_bn in (False, True)
        for epochs in (1, 2)
    ]
    assert ranking.axes_of(rows)[-1] == "qat.epochs"
    assert [(effect.axis, effect.pairs) for effect in ranking.effects(rows)] == [("fuse_bn", 2), ("qat.epochs", 2)]
    assert len(ranking.over_seeds(rows)) == 4
    hidden = [{key: value for key, value in row.items() if key != "qat.epochs"} for row in rows]
    assert ranking.effects(hidden) == [], "cells that differ in something unseen are no pair"


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
    front = ranking.pareto_front(cells, (ranking.SSIM, ranking.SIZE, ranking.LATENCY))
    assert front == ["accurate", "small", "fast", "tied"]
