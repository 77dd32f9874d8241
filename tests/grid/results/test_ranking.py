"""The rules of rows: axes are what int8 rows vary, and a recipe is the mean of its seeds, those that failed told."""

import pytest

from grid.results import ranking
from grid.results.effects import effects
from tests.grid.measures import SSIM
from tests.grid.report.report_rows import row


def test_further_axes_are_found_in_dotted_columns_and_not_averaged_away():
    rows = [
        row(f"{fuse_bn}-qat-qat.epochs={epochs}", method="qat", fuse_bn=fuse_bn, test_ssim=0.1 * epochs)
        | {"qat.epochs": epochs}
        for fuse_bn in (False, True)
        for epochs in (1, 2)
    ]
    assert ranking.axes_of(rows)[-1] == "qat.epochs"
    assert [(effect.axis, effect.pairs) for effect in effects(rows)] == [("fuse_bn", 2), ("qat.epochs", 2)]
    assert len(ranking.over_seeds(rows)) == 4
    hidden = [{key: value for key, value in row.items() if key != "qat.epochs"} for row in rows]
    assert effects(hidden) == [], "cells that differ in something unseen are no pair"


def test_a_recipe_says_how_many_of_its_seeds_were_measured():
    rows = [
        row("a-s0", method="qat", seed=0, test_ssim=0.8, val_ssim=0.7, weights_changed=0.0),
        row("a-s1", method="qat", seed=1, test_ssim=0.9, val_ssim=0.9, weights_changed=0.2),
        row("a-s2", method="qat", seed=2, status="failed"),
        row("b-s0", method="qat", seed=0, status="excluded"),
    ]
    (merged,) = ranking.over_seeds(rows)
    assert (merged["seeds"], merged["seeds_planned"]) == (2, 3)
    assert (merged["test_ssim"], merged["val_ssim"], merged["weights_changed"]) == pytest.approx((0.85, 0.8, 0.1))


def test_the_column_of_a_measure_on_validation_is_there_for_accuracy_alone():
    assert [one.on("val") for one in (SSIM, ranking.SQNR, ranking.SIZE, ranking.LATENCY)] == [
        "val_ssim", "val_sqnr_db", "size_mb", "latency_ratio"
    ]  # fmt: skip
