"""Figures of a network by image, as CSV: what its evaluation leaves, and what comparisons are made from."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from model.errors import InputError
from model.files import replacing, write_atomically

COLUMNS = ("split", "index", "scene")
"""The first columns of the file; the measures follow them."""
_LAST = "noise_mse"


@dataclass(frozen=True)
class ImageFigures:
    """Figures of one network on the images of one split: ``scene`` int [N], ``figures`` float64 [N] by measure.

    NaN is no figure: an image whose depth is not known anywhere has none in metres.
    """

    scene: np.ndarray
    figures: Mapping[str, np.ndarray] = field(default_factory=dict)


def image_figures_text(tables: Mapping[str, ImageFigures]) -> str:
    """The tables by split as CSV, with ``COLUMNS`` first and the noise last; no figure is nothing."""
    named = dict.fromkeys(name for table in tables.values() for name in table.figures)
    measures = [*(name for name in named if name != _LAST), _LAST]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *measures])
    for split, table in tables.items():
        none = np.full(len(table.scene), np.nan)
        figures = np.stack([table.figures.get(name, none) for name in measures], axis=1).tolist()
        for index, (scene, line) in enumerate(zip(table.scene.tolist(), figures, strict=True)):
            writer.writerow([split, index, scene, *("" if one != one else f"{one:.12g}" for one in line)])
    return text.getvalue()


def write_image_figures(path: Path, tables: Mapping[str, ImageFigures]) -> Path:
    """Write the tables by split; the file is replaced at once."""
    return write_atomically(path, image_figures_text(tables))


def read_image_figures(path: Path) -> dict[str, ImageFigures]:
    """Read the tables by split; a measure that no image has is left out. Raises InputError, naming the file."""
    try:
        lines = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
        measures = lines[0][3:]
        if tuple(lines[0][:3]) != COLUMNS:
            raise ValueError(f"its columns are {lines[0][:3]}")
        by_split: dict[str, list[list[str]]] = {}
        for line in lines[1:]:
            by_split.setdefault(line[0], []).append(line)
        return {split: _table(split, found, measures) for split, found in by_split.items()}
    except (OSError, ValueError, LookupError) as error:
        problem = f"cannot be read ({type(error).__name__}: {str(error)[:200]})"
        hint = "Delete the folder that it is in: --resume computes it again."
        raise InputError(str(path), problem, "the file that an evaluation leaves", hint) from None


def write_cells_images(path: Path, files: Mapping[str, Path]) -> Path:
    """Write the figures by image of many cells as one file, ``cell`` before their columns; it is replaced at once.

    Raises InputError, naming the file, where one has other columns than the first.
    """
    head = ""
    with replacing(path) as aside, aside.open("w", encoding="utf-8", newline="") as whole:
        for cell, file in files.items():  # one at a time: thousands of cells are a hundred megabytes
            own, _, lines = file.read_text(encoding="utf-8").partition("\n")
            if not head:
                head = own
                whole.write(f"cell,{head}\n")
            if own != head:
                raise InputError(
                    str(file), f"has the columns {own[:200]!r}", f"those of the run's other cells, {head!r}"
                )
            whole.writelines(f"{cell},{line}\n" for line in lines.splitlines())
    return path


def _table(split: str, lines: list[list[str]], measures: list[str]) -> ImageFigures:
    if [line[1] for line in lines] != [str(number) for number in range(len(lines))]:
        raise ValueError(f"the images of {split} are not in their order")
    figures = np.array([[float(one or "nan") for one in line[3:]] for line in lines]).reshape(len(lines), len(measures))
    known = {name: column for name, column in zip(measures, figures.T, strict=True) if not np.isnan(column).all()}
    return ImageFigures(np.array([int(line[2]) for line in lines]), known)
