"""The sheet of predictions: a line a network, and beside each prediction its difference to the float network."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from grid.report.figures.predictions import TILE, draw_predictions
from grid.report.shown_images import ShownImages
from tests.grid.report.report_rows import grid_rows

COUNT = 3
RIGHT = 170 + TILE + 4 + TILE // 2
"""The middle of the first image's right tile, in pixels from the left."""


@pytest.fixture
def shown():
    truth = np.full((COUNT, 8, 8), 3.0, np.float32)
    predictions = {"fp32": truth + 0.5, "near": truth + 0.3, "far": truth + 0.7, "same": truth + 0.5}
    references = dict.fromkeys(("near", "far", "same"), truth + 0.5)
    image = np.zeros((COUNT, 32, 32, 3), np.uint8)
    return ShownImages(("one", "two", "three"), image, truth, predictions, references)


def rows_of(*cells: str) -> list[dict]:
    return [{**grid_rows()[0], "cell": cell} for cell in cells]


def tile_colour(path, line: int) -> np.ndarray:
    """The colour in the middle of the first right tile of a line, the first being the images themselves."""
    y = 24 + line * (TILE + 20) + 16 + TILE // 2
    return np.asarray(Image.open(path).convert("RGB"))[y, RIGHT].astype(int)


def test_nearer_than_float_is_blue_farther_red_and_the_same_almost_white(tmp_path, shown):
    draw_predictions(shown, rows_of("near", "far", "same"), tmp_path / "sheet.png")
    near, far, same = (tile_colour(tmp_path / "sheet.png", line) for line in (1, 2, 3))
    assert near[2] > near[0] + 50
    assert far[0] > far[2] + 50
    assert same.min() > 240


def test_all_differences_share_one_scale(tmp_path, shown):
    """Of two differences the smaller one is paler, whichever cells are drawn with it."""
    predictions = {**shown.predictions, "same": shown.truth + 0.55}
    draw_predictions(replace(shown, predictions=predictions), rows_of("far", "same"), tmp_path / "sheet.png")
    strong, pale = (tile_colour(tmp_path / "sheet.png", line) for line in (1, 2))
    assert pale[1] > strong[1] + 50


def test_each_network_is_a_line_and_those_without_maps_are_none(tmp_path, shown):
    draw_predictions(shown, rows_of("fp32", "near"), tmp_path / "two.png")
    draw_predictions(shown, rows_of("fp32", "near", "far", "gone"), tmp_path / "three.png")
    two, three = (Image.open(tmp_path / name) for name in ("two.png", "three.png"))
    assert three.height - two.height == TILE + 20
    assert three.width == two.width


def test_without_float_networks_to_compare_with_the_errors_are_shown(tmp_path, shown):
    alone = replace(shown, references={}, predictions={"near": shown.truth + 0.3, "far": shown.truth})
    draw_predictions(alone, rows_of("near", "far"), tmp_path / "sheet.png")
    wrong, right = (tile_colour(tmp_path / "sheet.png", line) for line in (1, 2))
    assert right.max() < 20, "no error is black"
    assert wrong.max() > 200
