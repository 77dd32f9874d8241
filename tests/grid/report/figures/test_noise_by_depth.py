"""Noise over true depth: a line a cell, and a name for each kind of cell."""

import numpy as np
import pytest
from matplotlib import pyplot

from grid.report.figures import noise_by_depth
from tests.grid.report.report_rows import grid_rows


def test_lines_are_the_cells_in_mm_and_kinds_are_named_once(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(noise_by_depth.pyplot, "close", kept.append)
    rows, edges = grid_rows()[2:], np.array([1.0, 2.0, 4.0])
    noise = [(row, np.array([0.02, 0.03 + 0.001 * place])) for place, row in enumerate(rows)]
    noise_by_depth.draw_noise_by_depth(edges, noise, [("fp32", np.array([0.3, 0.4]))], tmp_path / "depth.png")
    monkeypatch.undo()
    axes = kept[0].axes[0]
    drawn = [line.get_xydata() for line in axes.get_lines()]
    pyplot.close(kept[0])
    assert len(drawn) == 12
    assert drawn[3] == pytest.approx(np.array([[1.5, 20.0], [3.0, 33.0]]))
    names = axes.get_legend_handles_labels()[1]
    assert sorted(names) == sorted(set(names))
    assert "error of fp32" in names
    assert "noise of ptq+qat, per_tensor" in names
    assert (tmp_path / "depth.png").stat().st_size > 5000
