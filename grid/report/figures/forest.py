"""Differences with their intervals and the equivalence margin: as data, and drawn by matplotlib as one PNG."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes

from grid.report.figures.colours import MARGIN, VERDICTS

MOST_LINES = 40
USUAL_NAME, INCH_A_LETTER = 50, 0.075
"""Longer names make the picture wider, so that the differences keep their room."""


@dataclass(frozen=True)
class Line:
    """One difference: ``low`` and ``high`` are its interval, None where nothing was tested; ``verdict`` is its colour.

    ``words`` say it in full.
    """

    name: str
    estimate: float
    low: float | None
    high: float | None
    verdict: str
    words: str


@dataclass(frozen=True)
class Forest:
    """Differences, the best first; ``margin`` is the half width of the band in which they do not matter.

    ``x_label`` says what differs from what, and which way is better.
    """

    lines: tuple[Line, ...]
    margin: float
    x_label: str

    @property
    def verdicts(self) -> tuple[str, ...]:
        """The verdicts that there are, in the order of the key."""
        there = {line.verdict for line in self.lines}
        return tuple(verdict for verdict in VERDICTS if verdict in there)

    @property
    def limits(self) -> tuple[float, float]:
        """What the axis shows: all estimates and the margin whole, and intervals as far as they do not dwarf them."""
        near = max(self.margin, *(abs(line.estimate) for line in self.lines))
        ends = [end for line in self.lines for end in (line.low, line.high) if end is not None]
        low, high = min([-near, *ends]), max([near, *ends])
        return max(1.08 * low, -4 * near), min(1.08 * high, 4 * near)


def forest(lines: Sequence[Line], margin: float, x_label: str, higher_is_better: bool = True) -> Forest | None:
    """Return the forest of ``lines``, sorted; of more than 40 the best and the worst. None without any."""
    ordered = sorted(lines, key=lambda line: line.estimate, reverse=higher_is_better)
    if len(ordered) > MOST_LINES:
        ordered = ordered[: MOST_LINES * 3 // 4] + ordered[-(MOST_LINES // 4) :]
    return Forest(tuple(ordered), margin, x_label) if ordered else None


def draw_forest(shown: Forest, path: Path) -> None:
    """Draw a line a difference: a point, its interval, and its verdict in words beside it."""
    further = max(max(len(line.name) for line in shown.lines) - USUAL_NAME, 0)
    size = (13 + INCH_A_LETTER * further, 1.5 + 0.3 * len(shown.lines))
    figure, axes = pyplot.subplots(figsize=size, layout="constrained")
    axes.axvspan(-shown.margin, shown.margin, color=MARGIN, zorder=0, label="within the margin")
    axes.axvline(0, color="#888888", linewidth=1, zorder=1)
    for verdict in shown.verdicts:
        _points(axes, shown, verdict)
    axes.set_yticks(range(len(shown.lines)), [line.name for line in shown.lines], fontsize=9)
    axes.set_ylim(len(shown.lines) - 0.4, -0.6)
    axes.set_xlim(shown.limits)
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(shown.lines)), [line.words for line in shown.lines], fontsize=9)
    right.tick_params(length=0)
    axes.set_xlabel(shown.x_label)
    axes.grid(alpha=0.25, axis="x")
    figure.legend(loc="outside lower center", ncols=5, fontsize=9, frameon=False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _points(axes: Axes, shown: Forest, verdict: str) -> None:
    """The differences of one verdict, with their intervals."""
    lines = [(place, line) for place, line in enumerate(shown.lines) if line.verdict == verdict]
    for place, line in lines:
        if line.low is not None and line.high is not None:
            axes.plot([line.low, line.high], [place, place], color=VERDICTS[verdict], linewidth=2, zorder=2)
    estimates, places = [line.estimate for _, line in lines], [place for place, _ in lines]
    axes.scatter(estimates, places, s=36, color=VERDICTS[verdict], label=verdict, zorder=3)
