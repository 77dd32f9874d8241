"""The paired latencies of each cell as one PNG: what lies behind the median ratio of the tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes

from grid.report.figures import COLOURS
from grid.results.processors import by_processor
from grid.results.ranking import LATENCY, Row, processors, value

MOST_CELLS = 40
MOST_POINTS = 300
LEGEND = (
    "Each point is one pair: candidate over float network, one run right after the other. Box: the middle half of "
    "the pairs, line: 90 % of them; black bar: the median, which the tables show, with its 95 % interval. Left: the "
    "ratio; right: the same about its own median. Points beyond the edge are not shown. Cells that are the same "
    "network as another one are left out; so are those beyond the {} fastest{}."
)


def legend(rows: Sequence[Row]) -> str:
    """Return how to read the figure."""
    several = len(processors(rows)) > 1
    return LEGEND.format(_most(rows), " of each processor, which has panels of its own" if several else "")


def latencies(files: Mapping[str, Path], rows: Sequence[Row], path: Path) -> Path | None:
    """Draw the ratio of each pair, a strip a cell in the order of ``rows``, by processor; None without a file.

    ``files`` maps a cell to its ``latencies.npy``: seconds [pairs, 2] of candidate and float network. Median and
    interval are those of the rows. Raises ValueError, naming the file, where it has another shape.
    """
    groups = {name: _strips(files, view, _most(rows)) for name, view in by_processor(rows).items()}
    groups = {name: strips for name, strips in groups.items() if strips}
    if not groups:
        return None
    heights = [1.6 + 0.42 * len(strips) for strips in groups.values()]
    figure, lines = pyplot.subplots(
        len(groups), 2, figsize=(13, sum(heights)), sharey="row", squeeze=False, width_ratios=(1, 1),
        height_ratios=heights, layout="constrained",
    )  # fmt: skip
    for (left, right), (name, strips) in zip(lines, groups.items(), strict=True):
        _panel(left, strips, relative=False)
        _panel(right, strips, relative=True)
        left.set_yticks(range(len(strips)), [row["cell"] for row, _ in strips], fontsize=9)
        left.set_ylim(len(strips) - 0.4, -0.6)
        left.set_xlabel("latency, multiple of the float network (left is better)")
        right.set_xlabel("difference from the cell's median, %")
        if len(processors(rows)) > 1:
            left.set_title(f"on {name}", fontsize=10, parse_math=False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path


def _most(rows: Sequence[Row]) -> int:
    """How many cells a processor may show."""
    return max(MOST_CELLS // max(len(processors(rows)), 1), 1)


def _strips(files: Mapping[str, Path], rows: Sequence[Row], most: int) -> list[tuple[Row, np.ndarray]]:
    """The fastest networks of one processor, each once, with the ratios of their pairs."""
    shown = [row for row in rows if row["cell"] in files and row["status"] == "ok" and not row.get("same_as")]
    shown = [row for row in shown if value(row, LATENCY.column) is not None]
    fastest = sorted(shown, key=lambda row: float(row[LATENCY.column]))[:most]
    return [(row, _ratios(files[row["cell"]])) for row in shown if row in fastest]


def _ratios(file: Path) -> np.ndarray:
    """Candidate over reference, a figure a pair."""
    times = np.load(file)
    if times.ndim != 2 or times.shape[1] != 2 or not len(times):
        raise ValueError(f"{file}: shape {times.shape}; expected [pairs, 2], at least one pair")
    return times[:, 0] / times[:, 1]


def _panel(axes: Axes, strips: Sequence[tuple[Row, np.ndarray]], relative: bool) -> None:
    edges = []
    for place, (row, ratios) in enumerate(strips):
        middle = float(row[LATENCY.column])
        bounds = [value(row, f"{LATENCY.column}_{end}") for end in ("low", "high")]
        low, high = (middle if bound is None else bound for bound in bounds)
        figures = np.array([*ratios, low, middle, high])
        if relative:
            figures = 100 * (figures / middle - 1)
        _strip(axes, place, figures[:-3], tuple(figures[-3:]), COLOURS.get(row["method"], "black"))
        edges += [*np.percentile(figures[:-3], [2, 98]), figures[-3], figures[-1]]
    pad = 0.04 * (max(edges) - min(edges)) + 1e-6
    axes.set_xlim(min(edges) - pad, max(edges) + pad)
    axes.grid(alpha=0.25, axis="x")


def _strip(axes: Axes, place: int, ratios: np.ndarray, median: tuple[float, ...], colour: str) -> None:
    picked = ratios[np.linspace(0, len(ratios) - 1, min(len(ratios), MOST_POINTS)).astype(int)]
    shift = np.random.default_rng(0).uniform(-0.3, 0.3, len(picked))
    axes.plot(picked, place + shift, ".", color=colour, alpha=0.35, markersize=3, zorder=1)
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
