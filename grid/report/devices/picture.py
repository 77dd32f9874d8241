"""Devices side by side as one PNG: by how much each network is faster than its engine's float file, on each of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

from grid.results.ranking import Row, value

MOST_NETWORKS = 30
_MARKERS = "osD^vP*X"
_COLOURS = "tab10"


def draw_devices(networks: Mapping[str, Mapping[str, Row]], devices: Sequence[str], path: Path) -> None:
    """Draw a line a network, a marker a device with its 95 % interval; ``networks``: rows by name and device."""
    names = list(networks)[:MOST_NETWORKS]
    figure, axes = pyplot.subplots(figsize=(11, 1.6 + 0.22 * len(names) * (1 + len(devices) / 2)), layout="constrained")
    colours = pyplot.get_cmap(_COLOURS)
    step = 0.7 / max(len(devices), 1)
    hot: list[list[float]] = []
    for number, device in enumerate(devices):
        lines = [(line, networks[name][device]) for line, name in enumerate(names) if device in networks[name]]
        lines = [(line, row) for line, row in lines if value(row, "engine_ratio") is not None]
        ratios = [float(row["engine_ratio"]) for _, row in lines]
        ends = [
            (ratio - (value(row, "engine_ratio_low") or ratio), (value(row, "engine_ratio_high") or ratio) - ratio)
            for ratio, (_, row) in zip(ratios, lines, strict=True)
        ]
        heights = [line + step * (number - (len(devices) - 1) / 2) for line, _ in lines]
        if not lines:
            continue
        axes.errorbar(
            ratios,
            heights,
            xerr=list(zip(*ends, strict=True)),
            fmt=_MARKERS[number % len(_MARKERS)],
            color=colours(number % 10),
            capsize=2,
            label=device,
        )
        hot += [place for *place, (_, row) in zip(ratios, heights, lines, strict=True) if row.get("throttled")]
    if hot:
        axes.plot(*zip(*hot, strict=True), "o", markersize=13, fillstyle="none", color="#d95f02", label="throttled")
    axes.axvline(1.0, color="#555555", linewidth=1.0)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("latency, multiple of the engine's own float file on the same device (left is better)")
    axes.grid(alpha=0.25, axis="x")
    figure.legend(loc="outside right upper", fontsize=9, frameon=False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
