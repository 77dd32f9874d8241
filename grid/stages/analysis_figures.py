"""The pictures of a per-layer analysis: noise of each site, noise up to each site, and ranges of the worst sites."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from quant.analysis.site_errors import SiteError, ranked

COLOURS = {"weight": "#1f78b4", "activation": "#d95f02"}
CLIP = "#444444"
MOST_BARS, MOST_LABELS, RANGES_EACH = 20, 5, 4
DPI = 110


def short_name(error: SiteError) -> str:
    """The site's name without what its kind says already."""
    return error.name.removeprefix("quantizers.").removesuffix(".weight_quantizer")


def errors_figure(errors: Sequence[SiteError], path: Path) -> Path:
    """Draw the ranked isolated noise of the worst sites, and the SQNR of the network quantized up to each site."""
    worst = ranked(tuple(errors))[:MOST_BARS]
    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(15, 2.2 + 0.25 * max(len(worst), 14)), width_ratios=(1, 1.15), layout="constrained"
    )
    _bars(left, worst, len(errors))
    _curve(right, errors, worst)
    figure.savefig(path, dpi=DPI)
    pyplot.close(figure)
    return path


def _bars(axes: Axes, worst: Sequence[SiteError], count: int) -> None:
    shares = [100 * error.noise_share for error in worst]
    places = range(len(worst))
    axes.barh(places, shares, color=[COLOURS[error.kind] for error in worst], height=0.72)
    for place, (error, share) in enumerate(zip(worst, shares, strict=True)):
        axes.annotate(
            f"{error.isolated_sqnr_db:.1f} dB",
            (share, place),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    labels = [f"{short_name(error)}  {rank}" for rank, error in enumerate(worst, 1)]
    axes.set_yticks(places, labels, fontsize=8)
    axes.set_ylim(len(worst) - 0.4, -0.6)
    axes.set_xlim(0, 1.14 * max([*shares, 1e-3]))
    axes.set_xlabel("share of the sum of all sites' isolated noise, %")
    axes.set_title(f"The {len(worst)} worst of {count} sites, each alone (SQNR of the output)", fontsize=10)
    axes.legend(handles=[Patch(color=colour, label=kind) for kind, colour in COLOURS.items()], loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.25)


def _curve(axes: Axes, errors: Sequence[SiteError], worst: Sequence[SiteError]) -> None:
    """SQNR up to each site; the steps of the worst ones are numbered as in the bars."""
    orders = [error.order for error in errors]
    decibels = [error.cumulative_sqnr_db for error in errors]
    axes.plot(orders, decibels, color="#bbbbbb", linewidth=1.2, zorder=1)
    axes.scatter(orders, decibels, s=9, color=[COLOURS[error.kind] for error in errors], zorder=2)
    numbered = sorted(enumerate(worst[:MOST_LABELS], 1), key=lambda pair: pair[1].order)
    for place, (rank, error) in enumerate(numbered):  # neighbours at different heights
        axes.annotate(
            str(rank),
            (error.order, error.cumulative_sqnr_db),
            (0, 24 + 24 * (place % 3)),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            bbox={"boxstyle": "circle,pad=0.25", "facecolor": "white", "edgecolor": COLOURS[error.kind]},
            arrowprops={"arrowstyle": "-", "color": COLOURS[error.kind], "linewidth": 0.8},
            zorder=3,
        )
    axes.set_xlabel("site, in the order in which the network runs")
    axes.set_ylabel("SQNR of the output, dB (up is better)")
    axes.set_title("The network rounded up to and including each site (numbered: the worst alone)", fontsize=10)
    axes.margins(y=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def ranges_figure(errors: Sequence[SiteError], path: Path) -> Path:
    """Draw what each channel of the worst values and weights holds, and what their quantizers represent."""
    places = {error.name: rank for rank, error in enumerate(ranked(tuple(errors)), 1)}
    columns = {
        kind: [error for error in ranked(tuple(errors)) if error.kind == kind][:RANGES_EACH]
        for kind in ("activation", "weight")
    }
    lines = max(1, *(len(column) for column in columns.values()))
    figure, grid = pyplot.subplots(lines, 2, figsize=(15, 0.9 + 2.5 * lines), squeeze=False, layout="constrained")
    for number, column in enumerate(columns.values()):
        for line in range(lines):
            if line < len(column):
                _channels(grid[line][number], column[line], places[column[line].name])
            else:
                grid[line][number].axis("off")
        if column:
            grid[len(column) - 1][number].set_xlabel("channels, widest first")
    handles: list[Artist] = [
        Patch(color=colour, label=f"{kind} of a channel, in float") for kind, colour in COLOURS.items()
    ]
    handles.append(Line2D([], [], color=CLIP, linewidth=1, linestyle="--", label="what the quantizer represents"))
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    figure.savefig(path, dpi=DPI)
    pyplot.close(figure)
    return path


def _channels(axes: Axes, error: SiteError, rank: int) -> None:
    low, high = np.array(error.low), np.array(error.high)
    order = np.argsort(-np.maximum(np.abs(low), np.abs(high)), kind="stable")
    edges = np.arange(len(low) + 1)
    axes.stairs(high[order], edges, baseline=low[order], fill=True, color=COLOURS[error.kind], alpha=0.75)
    for clip in (np.array(error.clip_low), np.array(error.clip_high)):
        wide = clip[order] if len(clip) == len(order) else np.full(len(order), clip[0])
        axes.stairs(wide, edges, baseline=None, color=CLIP, linewidth=1, linestyle="--")
    scales = "a scale for each channel" if len(error.clip_low) > 1 else "one scale"
    text = f"{rank}. {short_name(error)}: {error.isolated_sqnr_db:.1f} dB alone, {scales}, spread {error.spread:.1f}"
    axes.set_title(text, fontsize=9, loc="left")
    axes.axhline(0, color="black", linewidth=0.5)
    axes.set_xlim(0, len(low))
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
