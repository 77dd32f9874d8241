"""Test images, true depth, and each network's prediction beside its difference to float, as one PNG."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import pyplot
from matplotlib.colors import Normalize

from grid.report.figures.sheet import Line, Scale, draw_sheet, label_of
from grid.report.shown_images import ShownImages
from grid.results.ranking import Row

TILE = 112  # pixels a picture


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
    images, truths = map(_resized, shown.image[..., :3]), (_colour(one, depth) for one in shown.truth)
    pairs = [[(image, "image"), (truth, "true depth")] for image, truth in zip(images, truths, strict=True)]
    lines = [Line("test image\nand true depth", pairs)]
    for row in rows:
        cell = row["cell"]
        beside = differences.get(cell)
        titles = [f"error, mean {one.mean():.2f} m" for one in errors[cell]]
        if beside is not None:
            titles = [f"to float, rms {1000 * np.sqrt(np.square(one).mean()):.0f} mm" for one in beside]
        right = [_colour(one, error) for one in errors[cell]]
        right = right if beside is None else [_colour(one, difference) for one in beside]
        left = [(_colour(one, depth), "prediction") for one in shown.predictions[cell]]
        pairs = [[one, other] for one, other in zip(left, zip(right, titles, strict=True), strict=True)]
        lines.append(Line(label_of(cell, f"SSIM {float(row['test_ssim']):.4f}"), pairs))
    scales = [(depth, "depth, m")]
    if len(differences) < len(errors):
        scales.append((error, "absolute error of the float network, m" if differences else "absolute error, m"))
    if differences:
        scales.append((difference, "difference to float, m (blue: nearer)"))
    draw_sheet(path, shown.titles, lines, scales, (TILE, TILE))


def _largest(maps: Sequence[np.ndarray]) -> float:
    """The end of a scale: few pixels lie beyond it."""
    return max(float(np.percentile(np.stack(maps), 99.5)), 1e-6) if maps else 1.0


def _colour(values: np.ndarray, scale: Scale) -> np.ndarray:
    normalize, colours = scale
    return _resized(colours(normalize(values), bytes=True)[..., :3])


def _resized(image: np.ndarray) -> np.ndarray:
    """Nearest-neighbour resampling to TILE x TILE."""
    rows = (np.arange(TILE) + 0.5) * image.shape[0] / TILE
    columns = (np.arange(TILE) + 0.5) * image.shape[1] / TILE
    return np.asarray(image[rows.astype(int)][:, columns.astype(int)])
