"""The paired latencies of each cell as one PNG: what lies behind the median ratio of the tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes

from grid.report.figures.colours import METHODS, OTHER
from grid.results.processors import by_processor
from grid.results.ranking import LATENCY, Row, processors, value

MOST_CELLS = 40
MOST_POINTS = 300
Strips = list[tuple[Row, np.ndarray]]
"""Rows with their pairs: the ratio, and the number of the load [pairs, 2]."""


def latency_strips(files: Mapping[str, Path], rows: Sequence[Row]) -> dict[str, Strips]:
    """Return by processor the fastest networks in the order of ``rows``, each once, with the ratio of each pair.

    ``files`` maps a cell to its ``latencies.npy``: seconds of candidate and float network, and the number of the load
    [pairs, 3], or without it [pairs, 2]. The processor is empty where there is but one. Raises ValueError, naming the
    file, where it has another shape.
    """
    views, most = by_processor(rows), most_cells(rows)
    strips = {name if len(views) > 1 else "": _strips(files, view, most) for name, view in views.items()}
    return {name: members for name, members in strips.items() if members}


def most_cells(rows: Sequence[Row]) -> int:
    """Return how many cells a processor may show."""
    return max(MOST_CELLS // max(len(processors(rows)), 1), 1)


def draw_latencies(strips: Mapping[str, Strips], path: Path) -> None:
    """Draw a strip a cell, a line of panels a processor; median and interval are those of the rows."""
    heights = [1.6 + 0.42 * len(members) for members in strips.values()]
    figure, lines = pyplot.subplots(
        len(strips), 2, figsize=(13, sum(heights)), sharey="row", squeeze=False, width_ratios=(1, 1),
        height_ratios=heights, layout="constrained",
    )  # fmt: skip
    for (left, right), (name, members) in zip(lines, strips.items(), strict=True):
        _panel(left, members, relative=False)
        _panel(right, members, relative=True)
        left.set_yticks(range(len(members)), [row["cell"] for row, _ in members], fontsize=9)
        left.set_ylim(len(members) - 0.4, -0.6)
        left.set_xlabel("latency, multiple of the float network (left is better)")
        right.set_xlabel("difference from the cell's median, %")
        if name:
            left.set_title(f"on {name}", fontsize=10, parse_math=False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _strips(files: Mapping[str, Path], rows: Sequence[Row], most: int) -> Strips:
    """The fastest networks of one processor, each once, with the ratios of their pairs."""
    once = [row for row in rows if row["cell"] in files and row["status"] == "ok" and not row.get("same_as")]
    timed = [row for row in once if value(row, LATENCY.column) is not None]
    fastest = {row["cell"] for row in sorted(timed, key=lambda row: float(row[LATENCY.column]))[:most]}
    return [(row, _ratios(files[row["cell"]])) for row in timed if row["cell"] in fastest]


def _ratios(file: Path) -> np.ndarray:
    """Candidate over reference and the load, a line a pair."""
    times = np.load(file)
    if times.ndim != 2 or times.shape[1] not in (2, 3) or not len(times):
        raise ValueError(f"{file}: shape {times.shape}; expected [pairs, 3] or [pairs, 2], at least one pair")
    loads = times[:, 2] if times.shape[1] > 2 else np.zeros(len(times))
    return np.stack([times[:, 0] / times[:, 1], loads], axis=1)


def _panel(axes: Axes, strips: Strips, relative: bool) -> None:
    edges = []
    for place, (row, pairs) in enumerate(strips):
        ratios = pairs[:, 0]
        middle = float(row[LATENCY.column])
        bounds = [value(row, f"{LATENCY.column}_{end}") for end in ("low", "high")]
        low, high = (middle if bound is None else bound for bound in bounds)
        figures = np.array([*ratios, low, middle, high])
        if relative:
            figures = 100 * (figures / middle - 1)
        _strip(axes, place, figures[:-3], pairs[:, 1], tuple(figures[-3:]), METHODS.get(row["method"], OTHER))
        edges += [*np.percentile(figures[:-3], [2, 98]), figures[-3], figures[-1]]
    pad = 0.04 * (max(edges) - min(edges)) + 1e-6
    axes.set_xlim(min(edges) - pad, max(edges) + pad)
    axes.grid(alpha=0.25, axis="x")


def _strip(
    axes: Axes, place: int, ratios: np.ndarray, loads: np.ndarray, median: tuple[float, ...], colour: str
) -> None:
    """The pairs of each load in a lane of its own, with its median; over them the box of all, and the interval."""
    picked = np.linspace(0, len(ratios) - 1, min(len(ratios), MOST_POINTS)).astype(int)
    numbers = np.unique(loads)
    lane = 0.6 / len(numbers)
    lanes = place - 0.3 + lane * (np.searchsorted(numbers, loads) + 0.5)
    shift = np.random.default_rng(0).uniform(-0.4, 0.4, len(picked)) * lane
    axes.plot(ratios[picked], lanes[picked] + shift, ".", color=colour, alpha=0.35, markersize=3, zorder=1)
    for number in numbers if len(numbers) > 1 else ():
        own = loads == number
        axes.plot(np.median(ratios[own]), lanes[own][0], "o", color=colour, markersize=4, zorder=5)
    fifth, quarter, three_quarters, last = np.percentile(ratios, [5, 25, 75, 95])
    axes.plot([fifth, last], [place, place], color=colour, linewidth=1.2, zorder=2)
    axes.barh(
        place,
        three_quarters - quarter,
        0.36,
        left=quarter,
        facecolor="white",
        edgecolor=colour,
        linewidth=1.2,
        zorder=3,
    )
    low, middle, high = median
    axes.plot([low, high], [place, place], color="black", linewidth=3, solid_capstyle="butt", zorder=4)
    axes.plot([middle, middle], [place - 0.24, place + 0.24], color="black", linewidth=1.4, zorder=4)
