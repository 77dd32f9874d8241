"""How far two networks agree: in decibels, in levels of the output, and in the task's headline metric."""

import csv

import pytest
import torch

from grid.run.export.agreement import agreement_text, agreements, write_csv

SCALE = 0.5
IMAGES = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_every_pair_is_compared_in_levels_of_the_output():
    off = IMAGES.clone()
    off[0, 0, 0, 0] += 3 * SCALE
    found = agreements({"simulation": IMAGES, "first": IMAGES.clone(), "second": off}, [SCALE])
    assert [(pair.one, pair.other) for pair in found] == [
        ("simulation", "first"), ("simulation", "second"), ("first", "second"),
    ]  # fmt: skip
    same, apart, again = found
    assert (same.sqnr_db, same.largest_levels, same.mean_levels) == (None, 0.0, 0.0)
    assert apart.largest_levels == pytest.approx(3, rel=1e-5)
    assert apart.mean_levels == pytest.approx(3 / IMAGES.numel(), rel=1e-5)
    noise = (3 * SCALE) ** 2 / IMAGES.numel()
    assert apart.sqnr_db == pytest.approx(float(10 * torch.log10(IMAGES.double().var(correction=0) / noise)), rel=1e-5)
    assert again.sqnr_db == apart.sqnr_db


def test_of_several_outputs_the_one_that_is_furthest_off_counts_and_float_ones_have_no_levels():
    one = {"near": IMAGES, "here": IMAGES * 2}
    other = {"near": IMAGES + SCALE, "here": IMAGES * 2 + 8}
    (found,) = agreements({"simulation": one, "engine": other}, [SCALE, None])
    assert found.largest_levels == pytest.approx(1, rel=1e-5)
    (of_both,) = agreements({"simulation": one, "engine": other}, [SCALE, 2.0])
    assert of_both.largest_levels == pytest.approx(4, rel=1e-5)
    (in_float,) = agreements({"PyTorch": one, "engine": other}, [None, None])
    assert in_float.largest_levels is in_float.mean_levels is None
    assert in_float.sqnr_db == found.sqnr_db


def test_the_table_and_the_file_say_the_same(tmp_path):
    found = agreements({"simulation": IMAGES, "engine": IMAGES + SCALE, "equal": IMAGES}, [None])
    figures = {"simulation": 0.9, "engine": 0.8, "equal": 0.9}
    header, *lines = agreement_text(found, "SSIM", figures)
    assert header.split() == ["and", "SQNR", "dB", "most", "levels", "mean", "levels", "SSIM", "and"]
    assert lines[1].split() == ["simulation", "equal", "equal", "–", "–", "0.9000", "0.9000"]
    assert len({len(line) for line in lines}) == 1
    write_csv(tmp_path / "agreement.csv", found, "ssim", figures)
    with (tmp_path / "agreement.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["ssim_other"] for row in rows] == ["0.8", "0.9", "0.9"]
    assert rows[1]["sqnr_db"] == rows[0]["largest_levels"] == ""
