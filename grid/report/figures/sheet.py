"""A sheet of small pictures: a line a network, a few columns an image, as one PNG."""

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

MOST_IN_FULL_COLOUR = 180
_GAP, _TITLE, _WIDE, _MARGIN, _HEAD, _FOOT, _DPI = 4, 16, 14, 170, 24, 90, 110
Scale = tuple[Normalize, Colormap]
Tile = tuple[np.ndarray, str]
"""A picture uint8 [H, W, 3], and what stands above it."""


@dataclass(frozen=True)
class Line:
    """What stands left of a line, and the tiles of each image."""

    label: str
    images: Sequence[Sequence[Tile]]


def label_of(cell: str, figure: str) -> str:
    """A cell's name in lines that fit beside a sheet, with a figure below it."""
    name = "\n".join(textwrap.wrap(cell.replace("-", "- "), 20)).replace("- ", "-")
    return f"{name}\n{figure}"


def draw_sheet(
    path: Path, heads: Sequence[str], lines: Sequence[Line], scales: Sequence[tuple[Scale, str]], side: tuple[int, int]
) -> None:
    """Lay the tiles out, each of at most ``side`` (height, width), with the colour scales below them.

    Matplotlib writes the text, and the tiles are copied into its pixels: it would resample each of them as floats.
    """
    columns = max((len(image) for line in lines for image in line.images), default=1)
    step_y, step_x = side[0] + _TITLE + _GAP, columns * (side[1] + _GAP) - _GAP + _WIDE
    top = _HEAD + _TITLE * max((head.count("\n") for head in heads), default=0)
    width = _MARGIN + len(heads) * step_x - _WIDE
    height = top + len(lines) * step_y + (_FOOT if scales else 0)
    figure = pyplot.figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    tiles: list[tuple[int, int, np.ndarray]] = []

    def write(x: float, y: float, text: str, **look: Any) -> None:
        figure.text(x / width, 1 - y / height, text, parse_math=False, **look)

    for number, head in enumerate(heads):
        write(_MARGIN + number * step_x, top - 6, head, fontsize=8.5, va="bottom")
    for place, line in enumerate(lines):
        y = top + place * step_y + _TITLE
        write(_MARGIN - 8, y + side[0] / 2, line.label, fontsize=8.5, ha="right", va="center")
        for number, image in enumerate(line.images):
            for which, (tile, title) in enumerate(image):
                x = _MARGIN + number * step_x + which * (side[1] + _GAP)
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
        pixels[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    picture = Image.fromarray(pixels)
    if len(tiles) > MOST_IN_FULL_COLOUR:  # of half the size, which a page has room for
        picture = picture.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)
