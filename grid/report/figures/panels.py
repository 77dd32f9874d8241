"""The trade-off of accuracy against cost as data: sizes, and the latencies of each processor, for whatever draws it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from grid.report.figures import colours
from grid.report.formats import DASH, figure_text, ratio_text, setting_text
from grid.results.comparisons.evidence import Evidence
from grid.results.comparisons.groups import pareto_front
from grid.results.measures import DEPTH, Measures
from grid.results.processors import by_processor
from grid.results.ranking import LATENCY, SIZE, SQNR, Measure, Row, compared, processor_of, value

Shape = Literal["circle", "square", "diamond"]
SHAPES: Mapping[str, Shape] = {"per_channel": "circle", "per_tensor": "square", "float": "diamond"}
FRONT_OF_ALL, FRONT_OF_PLOT = "on the front of all three", "front of this plot"
COST_LABELS = {SIZE: "size, MB", LATENCY: "latency, multiple of the float network"}
MOST_NUMBERED = 30
FEW = 60
"""With more cells their marks are smaller, and of numbered ones that lie together the best alone keeps its number."""
TOGETHER = 0.04
"""Up to this distance in all panels points lie together, in parts of what a panel shows."""
MOST_BARS = 200
"""With more cells those with a number alone have a bar for the interval of their latency."""


@dataclass(frozen=True)
class Point:
    """One cell: ``number`` is its line in the first results table (from 1), ``x`` its cost, ``y`` its headline.

    ``interval`` is the 95 % interval of ``x``, ``group`` its method or engine, ``facts`` are lines of text about it.
    """

    number: int
    name: str
    x: float
    y: float
    interval: tuple[float, float] | None
    group: str
    shape: Shape
    filled: bool
    on_front: bool
    facts: tuple[str, ...]


@dataclass(frozen=True)
class Panel:
    """The headline against one cost; ``steps`` is the front of these two alone, by rising cost.

    ``processor`` is that of the latencies, empty where there is but one, and for sizes.
    """

    measure: Measure
    processor: str
    points: tuple[Point, ...]
    steps: tuple[tuple[float, float], ...]

    @property
    def x_label(self) -> str:
        """The cost, its unit, and which way is better."""
        return f"{COST_LABELS[self.measure]} (left is better)"


@dataclass(frozen=True)
class TradeOff:
    """All panels, sizes first; the colour of each group; and the points that have a number and a line in the key.

    ``headline`` is what stands on the vertical axis.
    """

    panels: tuple[Panel, ...]
    colours: Mapping[str, str]
    numbered: tuple[Point, ...]
    headline: Measure = DEPTH.headline

    @property
    def y_label(self) -> str:
        """The headline, and which way is better."""
        return f"test {self.headline.title} ({'up' if self.headline.higher_is_better else 'down'} is better)"

    def has_bar(self, point: Point) -> bool:
        """Whether the interval of a point's latency is drawn."""
        few = len(self.panels[0].points) <= MOST_BARS
        return point.interval is not None and (few or any(point.number == one.number for one in self.numbered))


def trade_off(rows: Sequence[Row], evidence: Evidence | None = None) -> TradeOff | None:
    """Return what the figure of accuracy against cost shows; None where nothing was measured.

    Rows of several seeds are recipes, as in the first results table. In the panel of sizes a point is on the front of
    headline, size and latency if it is on that of any processor. Of more than 30 cells those on the front and the best
    by the headline are numbered, of more than ``FEW`` at some distance from each other.
    """
    views, evidence = by_processor(rows), evidence or Evidence(rows)
    measures = evidence.measures
    lines = {name: plotted(compared(view), measures) for name, view in views.items()}
    fronts = {name: _front(there, evidence.of(views[name])) for name, there in lines.items()}
    everywhere = {number: row for there in reversed(lines.values()) for number, row in there}
    if not everywhere:
        return None
    several = len(views) > 1
    groups = _groups(row for _, row in sorted(everywhere.items()))
    panel = partial(_panel, measures, groups=groups, several=several)
    sizes = panel(SIZE, "", sorted(everywhere.items()), set().union(*fronts.values()))
    latencies = [panel(LATENCY, name if several else "", there, fronts[name]) for name, there in lines.items() if there]
    panels = (sizes, *latencies)
    return TradeOff(panels, dict(groups.values()), _numbered(panels, measures.headline.sign), measures.headline)


def plotted(rows: Sequence[Row], measures: Measures = DEPTH) -> list[tuple[int, Row]]:
    """Return the rows that have headline, size and latency, each with its line in the results table (from 1)."""
    return [
        (number, row)
        for number, row in enumerate(rows, 1)
        if row["status"] == "ok" and all(value(row, measure.column) is not None for measure in measures.front)
    ]


def _front(lines: Sequence[tuple[int, Row]], evidence: Evidence) -> set[str]:
    return set(pareto_front([row for _, row in lines], evidence.measures.front, evidence))


def _groups(rows: Iterable[Row]) -> dict[str, tuple[str, str]]:
    """The name and colour of each cell's group: its engine where rows have several, else its method."""
    rows = list(rows)
    if len({row.get("engine") for row in rows} - {None, ""}) > 1:
        engines = {row["cell"]: row.get("engine") or "PyTorch, float" for row in rows}
        return {cell: (name, colours.ENGINES.get(name, colours.OTHER)) for cell, name in engines.items()}
    return {row["cell"]: (row["method"], colours.METHODS.get(row["method"], colours.OTHER)) for row in rows}


def _panel(
    measures: Measures,
    measure: Measure,
    processor: str,
    lines: Sequence[tuple[int, Row]],
    front: set[str],
    groups: Mapping[str, tuple[str, str]],
    several: bool,
) -> Panel:
    points = tuple(
        Point(
            number=number,
            name=row["cell"],
            x=float(row[measure.column]),
            y=float(row[measures.headline.column]),
            interval=_interval(row) if measure is LATENCY else None,
            group=groups[row["cell"]][0],
            shape=SHAPES.get(row["granularity"] or "", SHAPES["float"]),
            filled=bool(row["fuse_bn"]),
            on_front=row["cell"] in front,
            facts=_facts(row, several, measures),
        )
        for number, row in lines
    )
    steps = _steps([(point.x, point.y) for point in points], measures.headline.sign)
    return Panel(measure, processor, points, tuple(steps))


def _interval(row: Row) -> tuple[float, float] | None:
    """The 95 % interval of the latency ratio; a bound that is missing is the ratio itself."""
    low, high = (value(row, f"{LATENCY.column}_{end}") for end in ("low", "high"))
    if low is None and high is None:
        return None
    middle = float(row[LATENCY.column])
    return middle if low is None else low, middle if high is None else high


def _facts(row: Row, several: bool, measures: Measures) -> tuple[str, ...]:
    names = ("fuse_bn", "granularity", "method", "engine")
    recipe = ", ".join(f"{name} {setting_text(row.get(name))}" for name in names)
    headline = measures.headline
    columns = {
        **{measure.column: measure.title for measure in (headline, *measures.others, SQNR)},
        **{f"simulated_{headline.key}": f"simulated {headline.title}", SIZE.column: SIZE.title},
        **{"latency_ms_p50": "p50 ms", "latency_ms_p90": "p90 ms"},
    }
    texts = ((title, figure_text(row, column)) for column, title in columns.items())
    where = f" on {processor_of(row)}" if several else ""
    figures = (f"{title} {text}" for title, text in texts if text != DASH)
    return (recipe, *figures, f"latency {ratio_text(row)} float{where}")


def _steps(points: Sequence[tuple[float, float]], sign: float) -> list[tuple[float, float]]:
    """The points (cost, headline) that no point of lower or equal cost reaches, by rising cost."""
    steps: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -sign * point[1])):
        if not steps or sign * y > sign * steps[-1][1]:
            steps.append((x, y))
    return steps


def _numbered(panels: Sequence[Panel], sign: float) -> tuple[Point, ...]:
    """Those on the front first, then the best by the headline, in the table's order; of many, none beside another."""
    points = panels[0].points
    ranked = sorted(points, key=lambda point: (not point.on_front, -sign * point.y))
    kept = ranked if len(points) <= FEW else _apart(ranked, panels)
    return tuple(sorted(kept[:MOST_NUMBERED], key=lambda point: point.number))


def _apart(ranked: Sequence[Point], panels: Sequence[Panel]) -> list[Point]:
    """Of points that lie together in all panels the first one."""
    places: dict[int, list[float]] = {point.number: [] for point in ranked}
    for panel in panels:
        there = {point.number: (point.x, point.y) for point in panel.points}
        for axis in (0, 1):
            figures = [place[axis] for place in there.values()]
            width = max(figures) - min(figures) or 1.0
            for number, place in places.items():  # one that another processor timed is nowhere here
                place.append(there[number][axis] / width if number in there else float("inf"))
    kept: list[Point] = []
    taken = np.empty((0, 2 * len(panels)))
    for point in ranked:
        own = np.array(places[point.number])
        with np.errstate(invalid="ignore"):  # nowhere and nowhere is no distance
            distances = np.nan_to_num(np.abs(taken - own), nan=0.0)
        if not (distances <= TOGETHER).all(axis=1).any():
            kept.append(point)
            taken = np.vstack([taken, own])
    return kept
