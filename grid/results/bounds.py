"""Whether cells keep the bounds of a target: surely, where their intervals do, or probably, by their estimates."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from grid.results.comparisons.evidence import Evidence
from grid.results.comparisons.subjects import Subjects
from grid.results.comparisons.verdicts import LEVEL, half_widths
from grid.results.ranking import LATENCY, SIZE, Measure, Row, value
from grid.results.target import Constraint, Target

BROKEN, PROBABLY, SURELY = 0, 1, 2
Interval = tuple[float, float]


def intervals(rows: Sequence[Row], measure: Measure, evidence: Evidence, split: str) -> dict[str, Interval | None]:
    """By cell the 95 % interval of its own figure; None where there is none.

    Of accuracy it holds other scenes and, where they are known, other draws of the networks; that of a latency is the
    row's, and a size is exact.
    """
    known = [row for row in rows if value(row, measure.on(split)) is not None]
    if measure.by_image:
        subjects = evidence.subjects([row["cell"] for row in known], measure, split) if known else None
        return {row["cell"]: _interval(subjects, place) for place, row in enumerate(known) if subjects}
    return {row["cell"]: _cost_interval(row, measure) for row in known}


def _interval(subjects: Subjects, place: int) -> Interval | None:
    if not subjects.tested[place]:
        return None
    moved, scene_degrees = subjects.deviations[place], subjects.scene_degrees
    by_scene = float(moved @ moved) / (len(moved) - 1)
    redraws = float(subjects.redraws[place])
    by_redraw = 0.0 if math.isnan(redraws) else redraws
    spent = by_scene**2 / scene_degrees + by_redraw**2 / max(float(subjects.degrees[place]), 1.0)
    degrees = (by_scene + by_redraw) ** 2 / spent if spent > 0 else scene_degrees
    half = float(half_widths(np.array(by_scene + by_redraw), np.array(degrees), LEVEL, subjects.one_image))
    figure = float(subjects.figures[place])
    return figure - half, figure + half


def _cost_interval(row: Row, measure: Measure) -> Interval | None:
    figure = float(row[measure.column])
    if measure is SIZE:
        return figure, figure
    low, high = (value(row, f"{measure.column}_{end}") for end in ("low", "high"))
    return (low, high) if measure is LATENCY and low is not None and high is not None else None


def kept(rows: Sequence[Row], target: Target, evidence: Evidence, split: str) -> dict[str, int]:
    """By cell whether it keeps all bounds: ``SURELY``, ``PROBABLY`` or ``BROKEN``."""
    states = {row["cell"]: SURELY for row in rows}
    for bound in target.constraints:
        found = intervals(rows, bound.measure, evidence, split)
        for row in rows:
            states[row["cell"]] = min(states[row["cell"]], _state(bound, row, found, split))
    return states


def _state(bound: Constraint, row: Row, found: Mapping[str, Interval | None], split: str) -> int:
    if not bound.is_met(row, split):
        return BROKEN
    interval = found.get(row["cell"])
    return SURELY if interval and all(bound.holds(end, split) for end in interval) else PROBABLY


def best_by(rows: Sequence[Row], measure: Measure, split: str) -> Row:
    """The row with the best estimate; of equal ones the first."""
    sign = 1.0 if measure.higher_is_better else -1.0
    figures = [value(row, measure.on(split)) for row in rows]
    return rows[int(np.argmax([-math.inf if figure is None else sign * figure for figure in figures]))]
