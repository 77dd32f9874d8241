"""The trade-off of accuracy against size and latency as one PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from grid.report.figures.colours import FRONT
from grid.report.figures.panels import (
    FEW,
    FRONT_OF_ALL,
    FRONT_OF_PLOT,
    SHAPES,
    Panel,
    Point,
    Shape,
    TradeOff,
)

MARKERS = {"circle": "o", "square": "s", "diamond": "D"}
"""Matplotlib's names of the shapes."""


def draw_tradeoff(tradeoff: TradeOff, path: Path) -> None:
    """Draw all panels, and a key that names the numbered cells. Filled markers are cells with fuse_bn."""
    panels, numbered = tradeoff.panels, tradeoff.numbered
    lines = (len(panels) + 1) // 2
    figure = pyplot.figure(figsize=(15, max(5.5 * lines, 2.2 + 0.23 * len(numbered))), layout="constrained")
    places = figure.add_gridspec(lines, 3, width_ratios=(1, 1, 0.62))
    all_axes = [figure.add_subplot(places[number // 2, number % 2]) for number in range(len(panels))]
    key = figure.add_subplot(places[:, 2])
    for axes, panel in zip(all_axes, panels, strict=True):
        _panel(axes, panel, tradeoff)
        axes.set_xlabel(panel.x_label)
        axes.set_ylabel(tradeoff.y_label, parse_math=False)
        if panel.processor:
            axes.set_title(f"on {panel.processor}", fontsize=10, parse_math=False)
    _key(key, tradeoff)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _panel(axes: Axes, panel: Panel, tradeoff: TradeOff) -> None:
    bars = [
        ((point.interval[0], point.y), (point.interval[1], point.y))
        for point in panel.points
        if point.interval and tradeoff.has_bar(point)
    ]
    if bars:
        axes.add_collection(LineCollection(bars, colors="#bbbbbb", linewidths=1.5, zorder=1))
    looks: dict[tuple[Shape, str, bool], list[Point]] = {}
    for point in panel.points:
        looks.setdefault((point.shape, tradeoff.colours[point.group], point.filled), []).append(point)
    few = len(panel.points) <= FEW
    for (shape, colour, filled), members in looks.items():  # one drawing a look: a thousand of them take a minute
        axes.scatter(
            [point.x for point in members],
            [point.y for point in members],
            s=64 if few else 25,
            marker=MARKERS[shape],
            facecolor=colour if filled else "white",
            edgecolor=colour,
            linewidth=1.6 if few else 1.0,
            zorder=3,
        )
    steps = np.array(panel.steps)
    axes.step(steps[:, 0], steps[:, 1], where="post", color=FRONT, alpha=0.35, linewidth=1.5, zorder=2)
    points = np.array([(point.x, point.y) for point in panel.points])
    rings = points[[point.on_front for point in panel.points]]
    size, width = (190, 1.4) if few else (90, 0.8)
    axes.scatter(rings[:, 0], rings[:, 1], s=size, facecolor="none", edgecolor=FRONT, linewidth=width, zorder=2)
    axes.margins(0.12)
    axes.grid(alpha=0.25)
    in_key = {point.number for point in tradeoff.numbered}
    _number_points(axes, points, [point.number if point.number in in_key else None for point in panel.points])


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


def _key(axes: Axes, tradeoff: TradeOff) -> None:
    axes.axis("off")
    looks: list[tuple[str, dict[str, Any]]] = [
        *((name, {"color": colour, "marker": "o"}) for name, colour in tradeoff.colours.items()),
        ("filled: fuse_bn", {"color": "black", "marker": "o"}),
        *((name, {"color": "black", "marker": MARKERS[shape], "mfc": "white"}) for name, shape in SHAPES.items()),
        (FRONT_OF_ALL, {"color": FRONT, "marker": "o", "mfc": "none", "ms": 12}),
        (FRONT_OF_PLOT, {"color": FRONT, "alpha": 0.35, "linestyle": "-"}),
    ]
    handles = [Line2D([], [], label=name, **{"linestyle": "", **look}) for name, look in looks]
    axes.legend(handles=handles, loc="upper left", ncols=2, fontsize=9, frameon=False, borderaxespad=0)
    numbered, further = tradeoff.numbered, len(tradeoff.panels[0].points) - len(tradeoff.numbered)
    lines = [f"{point.number:>3} {'*' if point.on_front else ' '} {_short(point.name)}" for point in numbered]
    lines += [f"    and {further} more without a number"] if further else []
    height = axes.figure.get_figure(root=True).get_figheight()
    text = f"* on the front of {tradeoff.headline.title}, size and latency\n\n" + "\n".join(lines)
    axes.text(0, 1 - 1.5 / height, text, family="monospace", fontsize=8.5, va="top", transform=axes.transAxes)


def _short(name: str) -> str:
    """A name that fits the key: the middle of a long one is left out."""
    return name if len(name) <= 44 else f"{name[:27]}…{name[-16:]}"
