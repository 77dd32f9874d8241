"""The learning curves of a grid as one PNG: loss and validation SSIM by epoch, a line a training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

History = Sequence[Mapping[str, float]]
LEGEND = (
    "Validation SSIM is that of the fake-quantized network with its ranges held; epoch 0 is the network before the "
    "first step. A ring marks the highest SSIM. Curves that start far from the others are cut off at the edge. Cells "
    "that share a training share a curve."
)
MOST_COLOURED = 10
PANELS = (("train_loss", "train loss (down is better)", False), ("val_ssim", "validation SSIM (up is better)", True))


def learning(histories: Mapping[str, History], path: Path) -> Path | None:
    """Draw the ``train_loss`` and ``val_ssim`` of each cell over ``epoch``; None where there is no history.

    The ten best by SSIM have a colour and a name, further ones are grey. Epochs without a figure are left out.
    """
    curves = _curves(histories)
    if not curves:
        return None
    named = curves[:MOST_COLOURED]
    figure, panels = pyplot.subplots(1, 2, figsize=(13, 4.6 + 0.2 * max(0, len(named) - 4)), layout="constrained")
    for axes, (column, label, higher) in zip(panels, PANELS, strict=True):
        for rank, (name, history) in reversed(list(enumerate(curves))):
            _line(axes, history, column, name, rank)
        _limits(axes, [_points(history, column)[1] for _, history in curves], higher)
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
    lines, names = panels[1].get_legend_handles_labels()
    figure.legend(lines[::-1], names[::-1], loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path


def _curves(histories: Mapping[str, History]) -> list[tuple[str, History]]:
    """Name and history of each training, the best first; cells with equal histories are one."""
    cells: dict[str, list[str]] = {}
    found: dict[str, History] = {}
    for cell, history in histories.items():
        if len(_points(history, "val_ssim")[1]):
            key = repr([sorted(row.items()) for row in history])
            cells.setdefault(key, []).append(cell)
            found[key] = history
    ranked = sorted(found, key=lambda key: -max(_points(found[key], "val_ssim")[1]))
    names = {key: cells[key][0] + (f" and {len(cells[key]) - 1} more" if len(cells[key]) > 1 else "") for key in found}
    return [(names[key], found[key]) for key in ranked]


def _points(history: History, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and finite figures of a column."""
    points = [(row["epoch"], row[column]) for row in history if np.isfinite(row.get(column, np.nan))]
    return np.array([x for x, _ in points]), np.array([y for _, y in points])


def _line(axes: Axes, history: History, column: str, name: str, rank: int) -> None:
    epochs, figures = _points(history, column)
    if not len(figures):
        return
    coloured = rank < MOST_COLOURED
    look: dict[str, Any] = {"color": "#cccccc", "linewidth": 1.0, "zorder": 2}
    if coloured:
        look = {"color": f"C{rank}", "linewidth": 1.6, "zorder": 3}
    label = name if coloured else "further trainings" if rank == MOST_COLOURED else None
    size = 4.0 if len(figures) <= 12 else 0.0  # a single epoch is a point and nothing else
    axes.plot(epochs, figures, marker="o", markersize=size, label=label, **look)
    if column == "val_ssim" and coloured:
        top = int(np.argmax(figures))
        axes.plot(epochs[top], figures[top], "o", mfc="none", mec=f"C{rank}", markersize=10, zorder=4)


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
