"""The strips of latencies: the fastest networks, each once, from files of the right shape."""

import numpy as np
import pytest
from PIL import Image

from grid.report.figures.latencies import draw_latencies, latency_strips
from tests.grid.report.report_rows import changed, grid_rows, latency_files, many_rows


def test_latency_strips_are_those_of_the_fastest_networks_each_once(tmp_path):
    rows = many_rows(60)
    files = latency_files(tmp_path, rows)
    few = changed(rows[:5], rows[4]["cell"], same_as=rows[3]["cell"])
    draw_latencies(latency_strips(files, rows), tmp_path / "many.png")
    draw_latencies(latency_strips(files, few), tmp_path / "few.png")
    assert Image.open(tmp_path / "many.png").height < 2200, "40 strips, not 60"
    assert Image.open(tmp_path / "few.png").height < 350
    assert [row["cell"] for row, _ in latency_strips(files, few)[""]] == [rows[2]["cell"], rows[3]["cell"]]
    assert latency_strips({}, rows) == {}


def test_latencies_of_another_shape_are_named(tmp_path):
    rows = grid_rows()
    np.save(tmp_path / "wrong.npy", np.ones(7))
    with pytest.raises(ValueError, match=r"wrong\.npy: shape \(7,\)"):
        latency_strips({rows[2]["cell"]: tmp_path / "wrong.npy"}, rows)
