"""The figures of a report as PNG files: accuracy against size and latency, and predictions side by side."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from grid.report.panels import Panel, panels, stairs
from grid.results.ranking import LATENCY, SIZE, SSIM, Row, value

COLOURS = {"fp32": "#555555", "ptq": "#d95f02", "qat": "#1f78b4", "ptq+qat": "#1b9e77"}
ENGINE_COLOURS = {
    "PyTorch, float": "#555555", "qnnpack": "#d95f02", "x86": "#1f78b4", "onednn": "#6a3d9a", "xnnpack": "#1b9e77",
    "onnxruntime": "#b8860b",
}  # fmt: skip
MARKERS = {"per_channel": "o", "per_tensor": "s"}
FLOAT_MARKER = "D"
FRONT = "#e7298a"
MOST_PICTURES, MOST_NETWORKS, MOST_NUMBERED = 4, 30, 30
TILE = 112  # pixels a picture


def groups(rows: Iterable[Row]) -> dict[str, tuple[str, str]]:
    """Return the name and colour of each cell's group: its engine where rows have several, else its method."""
    rows = list(rows)
    if len({row.get("engine") for row in rows} - {None, ""}) > 1:
        named = {row["cell"]: row.get("engine") or "PyTorch, float" for row in rows}
        return {cell: (name, ENGINE_COLOURS.get(name, "black")) for cell, name in named.items()}
    return {row["cell"]: (row["method"], COLOURS.get(row["method"], "black")) for row in rows}


def scatter(rows: Sequence[Row], path: Path) -> Path | None:
    """Draw SSIM against size and against latency, with the Pareto front; None where nothing was measured.

    Each processor has a panel and a front of its own. Filled markers are cells with fuse_bn. A cell's number is its
    line in the results table; of more than 30 cells those on the front and the best by SSIM have one.
    """
    found = panels(rows)
    if not found:
        return None
    points, front = found[0].points, found[0].front
    named = _named(points, front)
    looks = groups(row for _, row in points)
    lines = (len(found) + 1) // 2
    height = max(5.5 * lines, 2.2 + 0.23 * len(named))
    figure = pyplot.figure(figsize=(15, height), layout="constrained")
    places = figure.add_gridspec(lines, 3, width_ratios=(1, 1, 0.62))
    all_axes = [figure.add_subplot(places[number // 2, number % 2]) for number in range(len(found))]
    key = figure.add_subplot(places[:, 2])
    for axes, panel in zip(all_axes, found, strict=True):
        _panel(axes, panel, looks, {number for number, _ in named})
        label = "size of the state dict, MB" if panel.measure is SIZE else "latency, multiple of the float network"
        axes.set_xlabel(f"{label} (left is better)")
        axes.set_ylabel("test SSIM (up is better)")
        if panel.processor:
            axes.set_title(f"on {panel.processor}", fontsize=10, parse_math=False)
    _key(key, named, front, len(points) - len(named), dict(looks.values()))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path


def _named(points: Sequence[tuple[int, Row]], front: set[str]) -> list[tuple[int, Row]]:
    """The cells that have a number and a line in the key, in the order of the table."""
    ranked = sorted(points, key=lambda point: (point[1]["cell"] not in front, -float(point[1][SSIM.column])))
    return sorted(ranked[:MOST_NUMBERED], key=lambda point: point[0])


def _panel(axes: Axes, panel: Panel, looks: Mapping[str, tuple[str, str]], named: set[int]) -> None:
    numbered, measure = panel.points, panel.measure
    points = np.array([(float(row[measure.column]), float(row["test_ssim"])) for _, row in numbered])
    for (_, row), (x, y) in zip(numbered, points, strict=True):
        low, high = value(row, "latency_ratio_low"), value(row, "latency_ratio_high")
        if measure is LATENCY and low is not None and high is not None:
            axes.plot([low, high], [y, y], color="#bbbbbb", linewidth=1.5, zorder=1)
        axes.scatter(
            x,
            y,
            s=64,
            marker=MARKERS.get(row["granularity"] or "", FLOAT_MARKER),
            facecolor=looks[row["cell"]][1] if row["fuse_bn"] else "white",
            edgecolor=looks[row["cell"]][1],
            linewidth=1.6,
            zorder=3,
        )
    axes.step(
        *zip(*stairs(points.tolist()), strict=True), where="post", color=FRONT, alpha=0.35, linewidth=1.5, zorder=2
    )
    rings = points[[row["cell"] in panel.front for _, row in numbered]]
    axes.scatter(rings[:, 0], rings[:, 1], s=190, facecolor="none", edgecolor=FRONT, linewidth=1.4, zorder=2)
    axes.margins(0.12)
    axes.grid(alpha=0.25)
    _number_points(axes, points, [number if number in named else None for number, _ in numbered])


def _number_points(axes: Axes, points: np.ndarray, numbers: Sequence[int | None]) -> None:
    """Write each number near its point, where it covers neither a point nor another number."""
    axes.figure.canvas.draw()  # the layout, and with it the pixels, is known only after drawing
    pixels = axes.transData.transform(points)
    taken = list(pixels)
    angles = np.deg2rad(np.arange(0, 360, 30))
    around = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    offsets = np.concatenate([radius * around for radius in (17, 25, 34, 45, 58, 74)])
    for point, pixel, number in zip(points, pixels, numbers, strict=True):
        if number is None:
            continue
        room = np.linalg.norm((pixel + offsets)[:, None] - np.array(taken), axis=2).min(axis=1)
        free = np.flatnonzero(room >= 17)
        spot = pixel + offsets[free[0] if len(free) else room.argmax()]
        taken.append(spot)
        axes.annotate(
            str(number),
            tuple(point),
            (spot - pixel) * 72 / axes.figure.dpi,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=9,
            arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4},
            zorder=4,
        )


def _key(axes: Axes, named: Sequence[tuple[int, Row]], front: set[str], further: int, used: Mapping[str, str]) -> None:
    axes.axis("off")
    shapes = {**MARKERS, "float": FLOAT_MARKER}
    looks: list[tuple[str, dict]] = [
        *((name, {"color": colour, "marker": "o"}) for name, colour in used.items()),
        ("filled: fuse_bn", {"color": "black", "marker": "o"}),
        *((name, {"color": "black", "marker": mark, "mfc": "white"}) for name, mark in shapes.items()),
        ("on the front of all three", {"color": FRONT, "marker": "o", "mfc": "none", "ms": 12}),
        ("front of this panel", {"color": FRONT, "alpha": 0.35, "linestyle": "-"}),
    ]
    handles = [Line2D([], [], label=name, **{"linestyle": "", **look}) for name, look in looks]
    axes.legend(handles=handles, loc="upper left", ncols=2, fontsize=9, frameon=False, borderaxespad=0)
    lines = [f"{number:>3} {'*' if row['cell'] in front else ' '} {_short(row['cell'])}" for number, row in named]
    lines += [f"    and {further} more without a number"] if further else []
    height = axes.figure.get_figure(root=True).get_figheight()
    text = "* on the front of SSIM, size and latency\n\n" + "\n".join(lines)
    axes.text(0, 1 - 1.5 / height, text, family="monospace", fontsize=8.5, va="top", transform=axes.transAxes)


def _short(name: str) -> str:
    """A name that fits the key: the middle of a long one is left out."""
    return name if len(name) <= 44 else f"{name[:27]}…{name[-16:]}"


def samples(files: Mapping[str, Path], rows: Sequence[Row], path: Path) -> Path | None:
    """Draw test pictures, truth, and each network's prediction beside its error; None without sample files.

    ``files`` maps a cell to its ``samples.npz``: image uint8 [K,H,W,3], truth and prediction [K,h,w] in metres.
    All depth maps share one colour scale, all error maps another. Cells that are the same network as another
    one are left out; so are those beyond the 30 best by SSIM.
    """
    shown = [row for row in rows if row["cell"] in files and row["status"] == "ok" and not row.get("same_as")]
    if not shown:
        return None
    baseline = [row for row in shown if row["method"] == "fp32"][:1]
    int8 = [row for row in shown if row["method"] != "fp32"]
    if len(int8) > MOST_NETWORKS:
        kept = sorted(int8, key=lambda row: -(value(row, "test_ssim") or 0.0))[:MOST_NETWORKS]
        int8 = [row for row in int8 if row in kept]
    shown = baseline + int8
    loaded = {}
    for row in shown:
        with np.load(files[row["cell"]]) as file:
            loaded[row["cell"]] = {name: file[name][:MOST_PICTURES] for name in file.files}
    first = loaded[shown[0]["cell"]]
    truth = first["truth"].astype(np.float32)
    predictions = [loaded[row["cell"]]["prediction"].astype(np.float32) for row in shown]
    errors = [np.abs(prediction - truth) for prediction in predictions]
    nearest, farthest = np.percentile(truth, [1, 99])
    worst = max(float(np.percentile(np.stack(errors), 99)), 1e-6)
    depth = pyplot.Normalize(nearest, farthest), pyplot.get_cmap("viridis")
    error = pyplot.Normalize(0, worst), pyplot.get_cmap("magma")
    lines = [[_picture(first["image"][k]) for k in range(len(truth))]]
    beside = [[_colour(truth[k], *depth) for k in range(len(truth))]]
    for prediction, difference in zip(predictions, errors, strict=True):
        lines.append([_colour(prediction[k], *depth) for k in range(len(truth))])
        beside.append([_colour(difference[k], *error) for k in range(len(truth))])
    _sheet(path, shown, lines, beside, errors, depth, error)
    return path


def _picture(image: np.ndarray) -> np.ndarray:
    return _resized(image[..., :3] / 255.0)


def _colour(values: np.ndarray, scale: pyplot.Normalize, colours: matplotlib.colors.Colormap) -> np.ndarray:
    return _resized(colours(scale(values))[..., :3])


def _resized(image: np.ndarray) -> np.ndarray:
    """Nearest-neighbour resampling to TILE x TILE."""
    rows = (np.arange(TILE) + 0.5) * image.shape[0] / TILE
    columns = (np.arange(TILE) + 0.5) * image.shape[1] / TILE
    return image[rows.astype(int)][:, columns.astype(int)]


def _sheet(
    path: Path,
    shown: Sequence[Row],
    lines: Sequence[Sequence[np.ndarray]],
    beside: Sequence[Sequence[np.ndarray]],
    errors: Sequence[np.ndarray],
    depth: tuple,
    error: tuple,
) -> None:
    """Lay the tiles out on one canvas: a line a network, a pair of columns a picture."""
    gap, title, wide = 4, 16, 14
    count = len(lines[0])
    step_y, step_x = TILE + title + gap, 2 * TILE + gap + wide
    canvas = np.ones((len(lines) * step_y, count * step_x - wide, 3))
    for line, (pictures, partners) in enumerate(zip(lines, beside, strict=True)):
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
    for line in range(len(lines)):
        middle, top = line * step_y + title + TILE / 2, line * step_y + title - 3
        if line:
            row = shown[line - 1]
            name = "\n".join(textwrap.wrap(row["cell"].replace("-", "- "), 20)).replace("- ", "-")
            label = f"{name}\nSSIM {float(row['test_ssim']):.4f}"
        else:
            label = "test picture\nand true depth"
        axes.text(-8, middle, label, ha="right", va="center", fontsize=8.5)
        for k in range(count):
            titles = ("picture", "true depth")
            if line:
                titles = ("prediction", f"error, mean {float(errors[line - 1][k].mean()):.2f} m")
            for which, text in enumerate(titles):
                axes.text(k * step_x + which * (TILE + gap), top, text, fontsize=6.5, va="bottom")
    for place, (scale, colours), label in (
        (0.08, depth, "depth, m"),
        (0.56, error, "absolute error, m"),
    ):
        bar = figure.add_axes((place, 48 / height, 0.36, 14 / height))
        mappable = matplotlib.cm.ScalarMappable(scale, colours)
        figure.colorbar(mappable, cax=bar, orientation="horizontal").set_label(label, fontsize=9)
    figure.savefig(path, dpi=dpi)
    pyplot.close(figure)
