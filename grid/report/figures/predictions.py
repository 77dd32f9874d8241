"""Test images, true depth, and each network's prediction beside its difference to float, as one PNG."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from PIL import Image

from grid.report.shown_images import ShownImages
from grid.results.ranking import Row

TILE = 112  # pixels a picture
MOST_IN_FULL_COLOUR = 180
_GAP, _TITLE, _WIDE, _MARGIN, _HEAD, _FOOT, _DPI = 4, 16, 14, 170, 24, 90, 110
Scale = tuple[Normalize, Colormap]


@dataclass(frozen=True)
class _Line:
    """What stands left of a line, and for each image two tiles with their titles."""

    label: str
    left: Sequence[np.ndarray]
    left_title: str
    right: Sequence[np.ndarray]
    right_titles: Sequence[str]


def draw_predictions(shown: ShownImages, rows: Sequence[Row], path: Path) -> None:
    """Draw a line a row of ``rows``: the prediction, and beside it the difference to the float network.

    All depth maps share one colour scale, all differences another; a float network has its absolute error instead, with
    a scale of its own.
    """
    rows = [row for row in rows if row["cell"] in shown.predictions]
    errors = {row["cell"]: np.abs(shown.predictions[row["cell"]] - shown.truth) for row in rows}
    differences = {
        cell: shown.predictions[cell] - reference for cell, reference in shown.references.items() if cell in errors
    }
    nearest, farthest = np.percentile(shown.truth, [1, 99])
    depth = Normalize(nearest, farthest), pyplot.get_cmap("viridis")
    floats = [error for cell, error in errors.items() if cell not in differences] or list(errors.values())
    error = Normalize(0, _largest(floats)), pyplot.get_cmap("magma")
    widest = _largest([np.abs(one) for one in differences.values()])
    difference = Normalize(-widest, widest), pyplot.get_cmap("RdBu_r")
    lines = [_Line("test image\nand true depth", list(map(_resized, shown.image[..., :3])), "image",
                   [_colour(one, depth) for one in shown.truth], ["true depth"] * len(shown.truth))]  # fmt: skip
    for row in rows:
        cell = row["cell"]
        beside = differences.get(cell)
        titles = [f"error, mean {one.mean():.2f} m" for one in errors[cell]]
        if beside is not None:
            titles = [f"to float, rms {1000 * np.sqrt(np.square(one).mean()):.0f} mm" for one in beside]
        right = [_colour(one, error) for one in errors[cell]]
        right = right if beside is None else [_colour(one, difference) for one in beside]
        left = [_colour(one, depth) for one in shown.predictions[cell]]
        lines.append(_Line(_label(row), left, "prediction", right, titles))
    scales = [(depth, "depth, m")]
    if len(differences) < len(errors):
        scales.append((error, "absolute error of the float network, m" if differences else "absolute error, m"))
    if differences:
        scales.append((difference, "difference to float, m (blue: nearer)"))
    _sheet(path, shown.titles, lines, scales)


def _largest(maps: Sequence[np.ndarray]) -> float:
    """The end of a scale: few pixels lie beyond it."""
    return max(float(np.percentile(np.stack(maps), 99.5)), 1e-6) if maps else 1.0


def _label(row: Row) -> str:
    name = "\n".join(textwrap.wrap(row["cell"].replace("-", "- "), 20)).replace("- ", "-")
    return f"{name}\nSSIM {float(row['test_ssim']):.4f}"


def _colour(values: np.ndarray, scale: Scale) -> np.ndarray:
    normalize, colours = scale
    return _resized(colours(normalize(values), bytes=True)[..., :3])


def _resized(image: np.ndarray) -> np.ndarray:
    """Nearest-neighbour resampling to TILE x TILE."""
    rows = (np.arange(TILE) + 0.5) * image.shape[0] / TILE
    columns = (np.arange(TILE) + 0.5) * image.shape[1] / TILE
    return np.asarray(image[rows.astype(int)][:, columns.astype(int)])


def _sheet(path: Path, heads: Sequence[str], lines: Sequence[_Line], scales: Sequence[tuple[Scale, str]]) -> None:
    """Lay the tiles out: a line a network, a pair of columns an image.

    Matplotlib writes the text, and the tiles are copied into its pixels: it would resample each of them as floats.
    """
    step_y, step_x = TILE + _TITLE + _GAP, 2 * TILE + _GAP + _WIDE
    width = _MARGIN + len(heads) * step_x - _WIDE
    height = _HEAD + len(lines) * step_y + _FOOT
    figure = pyplot.figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    tiles: list[tuple[int, int, np.ndarray]] = []

    def write(x: float, y: float, text: str, **look: Any) -> None:
        figure.text(x / width, 1 - y / height, text, parse_math=False, **look)

    for number, head in enumerate(heads):
        write(_MARGIN + number * step_x, _HEAD - 6, head, fontsize=8.5, va="bottom")
    for place, line in enumerate(lines):
        y = _HEAD + place * step_y + _TITLE
        write(_MARGIN - 8, y + TILE / 2, line.label, fontsize=8.5, ha="right", va="center")
        for number, (left, right) in enumerate(zip(line.left, line.right, strict=True)):
            titles = (line.left_title, line.right_titles[number])
            for which, (tile, title) in enumerate(zip((left, right), titles, strict=True)):
                x = _MARGIN + number * step_x + which * (TILE + _GAP)
                tiles.append((x, y, tile))
                write(x, y - 3, title, fontsize=6.5, va="bottom")
    for place, (scale, label) in enumerate(scales):
        bar = figure.add_axes(((place + 0.1) / len(scales), 48 / height, 0.8 / len(scales), 14 / height))
        figure.colorbar(ScalarMappable(*scale), cax=bar, orientation="horizontal").set_label(label, fontsize=9)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]
    pyplot.close(figure)
    for x, y, tile in tiles:
        pixels[y : y + TILE, x : x + TILE] = tile
    picture = Image.fromarray(pixels)
    if len(tiles) > MOST_IN_FULL_COLOUR:  # of half the size, which a page has room for
        picture = picture.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)
