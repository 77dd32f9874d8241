"""Noise over true depth as one PNG: a line a cell, above it the error of the float network."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter

from grid.report.figures.colours import METHODS, OTHER
from grid.results.ranking import Row

_STYLES = {"per_channel": "-", "per_tensor": "--"}


def draw_noise_by_depth(
    edges: np.ndarray, noise: Sequence[tuple[Row, np.ndarray]], errors: Sequence[tuple[str, np.ndarray]], path: Path
) -> None:
    """Draw rms noise by bin of true depth, ``edges`` [bins + 1], on a logarithmic scale; all in metres, shown in mm.

    ``errors`` are the rms errors of float networks in the same bins, by name.
    """
    figure, axes = pyplot.subplots(figsize=(10, 4.8), layout="constrained")
    for name, values in errors:
        axes.stairs(1000 * values, edges, color=METHODS["fp32"], linewidth=2.0, baseline=None, label=f"error of {name}")
    labelled: set[tuple[str, str]] = set()
    middles = (edges[1:] + edges[:-1]) / 2
    for row, values in noise:
        kind = (str(row["method"]), str(row["granularity"]))
        label = None if kind in labelled else f"noise of {kind[0]}, {kind[1]}"
        labelled.add(kind)
        axes.plot(
            middles,
            1000 * np.maximum(values, 1e-6),
            marker="o",
            markersize=3,
            linewidth=1.3,
            label=label,
            color=METHODS.get(kind[0], OTHER),
            linestyle=_STYLES.get(kind[1], ":"),
        )
    axes.set_yscale("log")
    axes.set_xlabel("true depth, m")
    axes.set_ylabel("rms, mm (down is better)")
    plain = FuncFormatter(lambda figure, _: f"{figure:g}")
    axes.yaxis.set_major_formatter(plain)
    axes.yaxis.set_minor_formatter(plain)
    axes.tick_params(axis="y", which="minor", labelsize=7)
    axes.grid(alpha=0.25, which="both")
    figure.legend(loc="outside right upper", fontsize=9, frameon=False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
