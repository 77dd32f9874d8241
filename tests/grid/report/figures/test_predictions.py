"""The sheet of predictions: a line a network, each network once, the best of many."""

from PIL import Image

from grid.report.figures.predictions import MOST_NETWORKS, draw_predictions, pictured
from tests.grid.report.report_rows import changed, grid_rows, many_rows, sample_files


def test_the_sample_sheet_has_a_line_a_network_and_leaves_out_repeated_networks(tmp_path):
    rows = grid_rows()[:5]
    files = sample_files(tmp_path, rows)
    fewer = changed(rows, rows[4]["cell"], same_as=rows[3]["cell"])
    draw_predictions(files, pictured(files, rows), tmp_path / "all.png")
    draw_predictions(files, pictured(files, fewer), tmp_path / "fewer.png")
    heights = [Image.open(tmp_path / name).height for name in ("all.png", "fewer.png")]
    assert 100 < heights[0] - heights[1] < 180
    assert pictured({}, rows) == []


def test_of_very_many_networks_the_best_are_drawn_in_the_order_of_the_table(tmp_path):
    rows = many_rows(60)
    drawn = pictured(dict.fromkeys((line["cell"] for line in rows), tmp_path), rows)
    assert drawn[0]["cell"] == "fp32"
    assert len(drawn) == 1 + MOST_NETWORKS
    assert [line for line in rows if line in drawn] == drawn
    left_out = [line["test_ssim"] for line in rows[2:] if line not in drawn]
    assert max(left_out) <= min(line["test_ssim"] for line in drawn[1:])
