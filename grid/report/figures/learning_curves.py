"""The learning curves of a grid as one PNG: loss and validation headline by epoch, a line a training."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator

from grid.results.measures import DEPTH
from grid.results.ranking import Measure

History = Sequence[Mapping[str, float]]
Curve = tuple[str, History]
MOST_COLOURED = 10


def learning_curves(histories: Mapping[str, History], headline: Measure = DEPTH.headline) -> list[Curve]:
    """Return the name and history of each training, the best first; cells with equal histories are one.

    Trainings without any figure of the headline on validation images are left out.
    """
    column = headline.on("val")
    cells: dict[str, list[str]] = {}
    by_key: dict[str, History] = {}
    for cell, history in histories.items():
        if len(_points(history, column)[1]):
            key = repr([sorted(row.items()) for row in history])
            cells.setdefault(key, []).append(cell)
            by_key[key] = history
    ranked = sorted(by_key, key=lambda key: -max(headline.sign * _points(by_key[key], column)[1]))
    more = {key: f" and {len(names) - 1} more" if len(names) > 1 else "" for key, names in cells.items()}
    return [(f"{cells[key][0]}{more[key]}", by_key[key]) for key in ranked]


def draw_learning_curves(curves: Sequence[Curve], path: Path, headline: Measure = DEPTH.headline) -> None:
    """Draw the ``train_loss`` and the headline on validation images of each curve over ``epoch``.

    The first ten have a colour and a name, further ones are grey. Epochs without a figure are left out.
    """
    named = curves[:MOST_COLOURED]
    figure, panels = pyplot.subplots(1, 2, figsize=(13, 4.6 + 0.2 * max(0, len(named) - 4)), layout="constrained")
    better = headline.higher_is_better
    label = f"validation {headline.title} ({'up' if better else 'down'} is better)"
    shown = (("train_loss", "train loss (down is better)", False), (headline.on("val"), label, better))
    for axes, (column, label, higher) in zip(panels, shown, strict=True):
        _further(axes, [history for _, history in curves[MOST_COLOURED:]], column)
        for rank, (name, history) in reversed(list(enumerate(named))):
            _line(axes, history, column, name, f"C{rank}", headline if column != "train_loss" else None)
        _limits(axes, [_points(history, column)[1] for _, history in curves], higher)
        axes.set_xlabel("epoch")
        axes.set_ylabel(label, parse_math=False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
    lines, names = panels[1].get_legend_handles_labels()
    figure.legend(lines[::-1], names[::-1], loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _points(history: History, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and finite figures of a column."""
    points = [(row["epoch"], row[column]) for row in history if np.isfinite(row.get(column, np.nan))]
    return np.array([x for x, _ in points]), np.array([y for _, y in points])


def _further(axes: Axes, histories: Sequence[History], column: str) -> None:
    """Trainings without a name, drawn at once: a line each takes minutes where there are thousands."""
    points = [np.stack(_points(history, column), axis=1) for history in histories]
    lines = [one for one in points if len(one)]
    if lines:
        axes.add_collection(
            LineCollection(lines, colors="#cccccc", linewidths=1.0, zorder=2, label="further trainings")
        )
        alone = [one[0] for one in lines if len(one) == 1]  # a single epoch is a point and nothing else
        axes.plot([x for x, _ in alone], [y for _, y in alone], "o", color="#cccccc", markersize=4.0, zorder=2)


def _line(axes: Axes, history: History, column: str, name: str, colour: str, ringed: Measure | None) -> None:
    epochs, figures = _points(history, column)
    if not len(figures):
        return
    size = 4.0 if len(figures) <= 12 else 0.0
    axes.plot(epochs, figures, marker="o", markersize=size, label=name, color=colour, linewidth=1.6, zorder=3)
    if ringed is not None:
        top = int(np.argmax(ringed.sign * figures))
        axes.plot(epochs[top], figures[top], "o", mfc="none", mec=colour, markersize=10, zorder=4)


def _limits(axes: Axes, curves: Sequence[np.ndarray], higher: bool) -> None:
    """Show where the curves end up; starts that are worse by more than the spread of the rest are cut."""
    curves = [figures for figures in curves if len(figures)]
    if not curves:
        return
    sign = 1.0 if higher else -1.0
    best = max(float((sign * figures).max()) for figures in curves)
    usual = min(float(np.median(sign * figures)) for figures in curves)
    worst = min(float((sign * figures).min()) for figures in curves)
    room = max(best - usual, 1e-4)
    edges = sign * max(worst, usual - 2 * room), sign * best
    pad = 0.08 * max(abs(edges[1] - edges[0]), 1e-4)
    axes.set_ylim(min(edges) - pad, max(edges) + pad)
