"""Test images as the task draws them: the truth, and below it what each network found, as one PNG."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from grid.report.figures.sheet import Line, Tile, draw_sheet, label_of
from grid.report.shown_panels import Sheet
from grid.results.ranking import Measure, Row
from grid.storage.samples import Panels

_CHARACTER = 7  # pixels


def draw_panels(sheet: Sheet, headline: Measure, rows: Sequence[Row], path: Path) -> None:
    """Draw a line a row of ``rows``, its figure of the headline beside its name and those of the images above them."""
    lines = [Line("test images\nand their truth", _images(sheet.truth, [""] * len(sheet.heads)))]
    for row in rows:
        if (cell := row["cell"]) in sheet.found:
            figures = sheet.figures.get(cell, np.full(len(sheet.heads), np.nan)).tolist()
            notes = [f", {headline.title} {_short(figure)}" if math.isfinite(figure) else "" for figure in figures]
            label = label_of(cell, f"{headline.title} {float(row[headline.column]):.4f}")
            lines.append(Line(label, _images(sheet.found[cell], notes)))
    tiles = [tile for line in lines for image in line.images for tile, _ in image]
    side = max(tile.shape[0] for tile in tiles), max(tile.shape[1] for tile in tiles)
    columns = max(len(image) for line in lines for image in line.images)
    narrow = max(map(len, sheet.heads)) > columns * side[1] // _CHARACTER
    heads = [head.replace(": ", ":\n") if narrow else head for head in sheet.heads]
    draw_sheet(path, heads, lines, (), side)


def _images(panels: Panels, notes: Sequence[str]) -> list[list[Tile]]:
    """The tiles of each image; its note stands above the last one."""
    images = []
    for place, note in enumerate(notes):
        titles = [*list(panels)[:-1], f"{list(panels)[-1]}{note}"]
        images.append([(panel[place], title) for panel, title in zip(panels.values(), titles, strict=True)])
    return images


def _short(figure: float) -> str:
    """Of what is only right or wrong, 1 or 0."""
    if figure in (0.0, 1.0):
        return f"{figure:.0f}"
    return f"{figure:.3f}" if abs(figure) < 10 else f"{figure:.1f}"
