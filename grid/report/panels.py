"""What the figures of accuracy against cost show: a panel of sizes, and one of latencies for each processor."""

from collections.abc import Sequence
from dataclasses import dataclass

from grid.results.processors import by_processor
from grid.results.ranking import LATENCY, SIZE, SSIM, Measure, Row, compared, pareto_front, value


@dataclass(frozen=True)
class Panel:
    """SSIM against one cost: rows with their lines in the table, and the cells on the front of SSIM, size and latency.

    ``processor`` is that of the latencies, empty where there is but one, and in the panel of sizes.
    """

    measure: Measure
    processor: str
    points: list[tuple[int, Row]]
    front: set[str]


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Return the panel of all sizes and one of latencies for each processor; none where nothing was measured.

    Rows of several seeds are recipes, as in the first results table.
    """
    views = by_processor(rows)
    points = {name: plotted(compared(view)) for name, view in views.items()}
    fronts = {
        name: set(pareto_front([row for _, row in there], (SSIM, SIZE, LATENCY))) for name, there in points.items()
    }
    everywhere = {number: row for there in reversed(points.values()) for number, row in there}
    if not everywhere:
        return []
    sizes = Panel(SIZE, "", sorted(everywhere.items(), key=lambda point: point[0]), set().union(*fronts.values()))
    latencies = (
        Panel(LATENCY, name if len(views) > 1 else "", there, fronts[name]) for name, there in points.items() if there
    )
    return [sizes, *latencies]


def plotted(rows: Sequence[Row]) -> list[tuple[int, Row]]:
    """Return the rows that have SSIM, size and latency, each with its line in the results table (from 1)."""
    return [
        (number, row)
        for number, row in enumerate(rows, 1)
        if row["status"] == "ok" and all(value(row, measure.column) is not None for measure in (SSIM, SIZE, LATENCY))
    ]


def stairs(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points (cost, SSIM) that no point of lower or equal cost reaches, by rising cost."""
    found: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not found or y > found[-1][1]:
            found.append((x, y))
    return found
