"""Learning curves: of any number of trainings, each once, with the axes on where they end up."""

import numpy as np
import pytest
from PIL import Image

from grid.report.figures.learning_curves import _limits, draw_learning_curves, learning_curves
from tests.grid.report.report_rows import grid_rows, histories_of, many_rows


@pytest.mark.parametrize(("cells", "epochs"), [(1, 0), (1, 2), (3, 30), (40, 5)])
def test_learning_curves_of_any_number_of_cells_and_epochs(tmp_path, cells, epochs):
    rows = [line for line in many_rows(130) if "qat" in line["method"]][:cells]
    draw_learning_curves(learning_curves(histories_of(rows, epochs)), tmp_path / "learning.png")
    picture = Image.open(tmp_path / "learning.png")
    assert picture.height < 800
    assert np.asarray(picture).std() > 5
    assert learning_curves({"a": []}) == []


def test_cells_that_share_a_training_share_a_curve_and_the_best_come_first():
    histories = histories_of(grid_rows())
    best = max(histories, key=lambda cell: histories[cell][-1]["val_ssim"])
    names = [name for name, _ in learning_curves({**histories, "copy": histories[best]})]
    assert len(names) == len(histories)
    assert names[0] == f"{best} and 1 more"


def test_an_early_collapse_does_not_squash_the_curves():
    from matplotlib import pyplot

    _, axes = pyplot.subplots()
    _limits(axes, [np.array([0.1, 0.93, 0.94, 0.94]), np.array([0.92, 0.93, 0.93, 0.931])], True)
    low, high = axes.get_ylim()
    pyplot.close()
    assert 0.85 < low < 0.93
    assert high > 0.94
