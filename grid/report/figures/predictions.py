"""Test pictures, true depth, and each network's prediction beside its error, as one PNG."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize

from grid.results.ranking import Row, value

MOST_PICTURES, MOST_NETWORKS = 4, 30
TILE = 112  # pixels a picture
Scale = tuple[Normalize, Colormap]


def pictured(files: Mapping[str, Path], rows: Sequence[Row]) -> list[Row]:
    """Return the rows whose predictions are drawn: those with a file, each network once, the float one first.

    Of more than 30 int8 networks the best by SSIM are kept.
    """
    sampled = [row for row in rows if row["cell"] in files and row["status"] == "ok" and not row.get("same_as")]
    baseline = [row for row in sampled if row["method"] == "fp32"][:1]
    int8 = [row for row in sampled if row["method"] != "fp32"]
    best = sorted(int8, key=lambda row: -(value(row, "test_ssim") or 0.0))[:MOST_NETWORKS]
    kept = {row["cell"] for row in best}
    return baseline + [row for row in int8 if row["cell"] in kept]


def draw_predictions(files: Mapping[str, Path], rows: Sequence[Row], path: Path) -> None:
    """Draw a line a row of ``rows``; all depth maps share one colour scale, all error maps another.

    ``files`` maps a cell to its ``samples.npz``: image uint8 [K,H,W,3], truth and prediction [K,h,w] in metres.
    """
    loaded = []
    for row in rows:
        with np.load(files[row["cell"]]) as file:
            loaded.append({name: file[name][:MOST_PICTURES] for name in file.files})
    images, truth = loaded[0]["image"], loaded[0]["truth"].astype(np.float32)
    predictions = [arrays["prediction"].astype(np.float32) for arrays in loaded]
    errors = [np.abs(prediction - truth) for prediction in predictions]
    nearest, farthest = np.percentile(truth, [1, 99])
    worst = max(float(np.percentile(np.stack(errors), 99)), 1e-6)
    depth = Normalize(nearest, farthest), pyplot.get_cmap("viridis")
    error = Normalize(0, worst), pyplot.get_cmap("magma")
    left = [[_picture(image) for image in images]]
    right = [[_colour(one, depth) for one in truth]]
    for prediction, difference in zip(predictions, errors, strict=True):
        left.append([_colour(one, depth) for one in prediction])
        right.append([_colour(one, error) for one in difference])
    means = [[float(one.mean()) for one in difference] for difference in errors]
    _sheet(path, rows, left, right, means, depth, error)


def _picture(image: np.ndarray) -> np.ndarray:
    return _resized(image[..., :3] / 255.0)


def _colour(values: np.ndarray, scale: Scale) -> np.ndarray:
    normalize, colours = scale
    return _resized(colours(normalize(values))[..., :3])


def _resized(image: np.ndarray) -> np.ndarray:
    """Nearest-neighbour resampling to TILE x TILE."""
    rows = (np.arange(TILE) + 0.5) * image.shape[0] / TILE
    columns = (np.arange(TILE) + 0.5) * image.shape[1] / TILE
    return np.asarray(image[rows.astype(int)][:, columns.astype(int)])


def _sheet(
    path: Path,
    rows: Sequence[Row],
    left: Sequence[Sequence[np.ndarray]],
    right: Sequence[Sequence[np.ndarray]],
    mean_errors: Sequence[Sequence[float]],
    depth: Scale,
    error: Scale,
) -> None:
    """Lay the tiles out on one canvas: a line a network, a pair of columns a picture."""
    gap, title, wide = 4, 16, 14
    count = len(left[0])
    step_y, step_x = TILE + title + gap, 2 * TILE + gap + wide
    canvas = np.ones((len(left) * step_y, count * step_x - wide, 3))
    for line, (pictures, partners) in enumerate(zip(left, right, strict=True)):
        top = line * step_y + title
        for k in range(count):
            for tile, start in ((pictures[k], k * step_x), (partners[k], k * step_x + TILE + gap)):
                canvas[top : top + TILE, start : start + TILE] = tile
    margin, foot, dpi = 170, 90, 110
    width, height = canvas.shape[1] + margin, canvas.shape[0] + foot
    figure = pyplot.figure(figsize=(width / dpi, height / dpi), dpi=dpi)
    axes = figure.add_axes((margin / width, foot / height, canvas.shape[1] / width, canvas.shape[0] / height))
    axes.imshow(canvas, interpolation="nearest", aspect="auto")
    axes.axis("off")
    for line in range(len(left)):
        middle, top = line * step_y + title + TILE / 2, line * step_y + title - 3
        if line:
            row = rows[line - 1]
            name = "\n".join(textwrap.wrap(row["cell"].replace("-", "- "), 20)).replace("- ", "-")
            label = f"{name}\nSSIM {float(row['test_ssim']):.4f}"
        else:
            label = "test picture\nand true depth"
        axes.text(-8, middle, label, ha="right", va="center", fontsize=8.5)
        for k in range(count):
            titles = ("picture", "true depth")
            if line:
                titles = ("prediction", f"error, mean {mean_errors[line - 1][k]:.2f} m")
            for which, text in enumerate(titles):
                axes.text(k * step_x + which * (TILE + gap), top, text, fontsize=6.5, va="bottom")
    for place, scale, label in ((0.08, depth, "depth, m"), (0.56, error, "absolute error, m")):
        bar = figure.add_axes((place, 48 / height, 0.36, 14 / height))
        figure.colorbar(ScalarMappable(*scale), cax=bar, orientation="horizontal").set_label(label, fontsize=9)
    figure.savefig(path, dpi=dpi)
    pyplot.close(figure)
