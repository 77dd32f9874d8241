"""Which cells are drawn where there is no room for all."""

from grid.report.shortlist import MOST, shortlist
from tests.grid.report.report_rows import changed, grid_rows, many_rows, row


def names(rows: list[dict]) -> list[str]:
    return [row["cell"] for row in rows]


def test_a_small_grid_is_drawn_whole_in_its_order():
    rows = grid_rows()
    assert names(shortlist(rows, (), ())) == names(rows)


def test_of_very_many_the_float_one_the_recommended_the_front_the_best_and_the_worst_are_kept():
    rows = [{**row, "val_ssim": 1 - row["test_ssim"]} for row in many_rows(300)]
    some = names(rows)[50], names(rows)[60]
    kept = shortlist(rows, {some[0]}, {some[1]})
    assert len(kept) == MOST
    assert [row for row in rows if row in kept] == kept, "in the order of the table"
    assert {"fp32", "fp32-fuse_bn", *some} <= set(names(kept))
    by_validation = sorted(rows[2:], key=lambda row: -row["val_ssim"])
    assert by_validation[0] in kept, "by validation figures where there are any"
    assert by_validation[-1] in kept
    assert sum(row in kept for row in by_validation[:20]) > sum(row in kept for row in by_validation[-20:])


def test_rows_without_figures_repeated_networks_and_further_seeds_are_left_out():
    rows = changed(grid_rows(), "per_channel-qat", same_as="per_channel-ptq")
    rows = changed(rows, "per_tensor-qat", status="failed")
    rows += [row(f"new-s{seed}", method="ptq", seed=seed, test_ssim=0.9) for seed in (0, 1, 2)]
    kept = names(shortlist(rows, (), ()))
    assert {"per_channel-qat", "per_tensor-qat", "new-s1", "new-s2"}.isdisjoint(kept)
    assert "new-s0" in kept


def test_a_float_network_that_is_another_one_rewritten_is_left_out():
    rows = changed(grid_rows(), "fp32-fuse_bn", sqnr_db=128.0)
    assert "fp32-fuse_bn" not in names(shortlist(rows, (), ()))
    rows = changed(rows, "fp32-fuse_bn", sqnr_db=30.0)
    assert "fp32-fuse_bn" in names(shortlist(rows, (), ()))
