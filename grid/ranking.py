"""What the rows say: which is best, what is a tie, what an axis does. Plain numbers, no printing."""

import math
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Measure:
    """A column that ranks rows; two values tie up to ``tie`` (absolute) or ``tie_relative``."""

    column: str
    title: str
    higher_is_better: bool
    tie: float = 0.0
    tie_relative: float = 0.0


MSE = Measure("test_mse", "MSE", False, tie_relative=0.01)
SSIM = Measure("test_ssim", "SSIM", True, tie=0.001)
SQNR = Measure("sqnr_db", "SQNR dB", True, tie=0.1)
SIZE = Measure("size_mb", "size MB", False, tie_relative=0.005)
LATENCY = Measure("latency_ratio", "x float latency", False)
MEASURES = (MSE, SSIM, SQNR, SIZE, LATENCY)


@dataclass(frozen=True)
class Effect:
    """Paired differences (``to`` minus ``start``) between cells that are equal in all other axes.

    ``identical`` counts the pairs whose two cells are one and the same int8 network.
    """

    axis: str
    start: Any
    to: Any
    ssim: tuple[float, ...]
    sqnr_db: tuple[float, ...]
    pairs: int
    identical: int
    noise: float


def is_int8(row: Row) -> bool:
    """True for a measured int8 network."""
    return row["status"] == "ok" and row["method"] != "fp32"


def value(row: Row, column: str) -> float | None:
    """Return the figure, or None where there is none (missing or NaN)."""
    found = row.get(column)
    return None if found is None or found == "" or math.isnan(float(found)) else float(found)


def contenders(rows: Iterable[Row]) -> list[Row]:
    """Return the measured int8 rows, each network once (``same_as`` rows left out)."""
    return [row for row in rows if is_int8(row) and not row.get("same_as")]


def best(rows: Sequence[Row], measure: Measure, noise: float = 0.0) -> tuple[str, list[str]] | None:
    """Return the best cell among ``rows`` and those that tie with it; None where no row has the figure.

    Latency ratios tie when their intervals overlap, other figures when they differ by no more than the
    measure's tie or ``noise``.
    """
    rows = [row for row in rows if value(row, measure.column) is not None]
    if not rows:
        return None
    sign = 1 if measure.higher_is_better else -1
    first = max(rows, key=lambda row: sign * float(row[measure.column]))
    ties = [row["cell"] for row in rows if row is not first and _tie(first, row, measure, noise)]
    return first["cell"], ties


def _tie(first: Row, other: Row, measure: Measure, noise: float) -> bool:
    a, b = float(first[measure.column]), float(other[measure.column])
    if measure is LATENCY:
        high, low = value(first, "latency_ratio_high"), value(other, "latency_ratio_low")
        return a == b if high is None or low is None else low <= high
    return abs(a - b) <= max(measure.tie, measure.tie_relative * abs(a), noise)


def over_seeds(rows: Iterable[Row], axes: Sequence[str]) -> list[Row]:
    """Return one row a recipe: means over its measured seeds, ``<column>_std``, ``seeds`` (their number).

    Rows that were not measured are left out; a recipe with one seed keeps its row and has no deviation.
    """
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        if row["status"] == "ok":
            groups.setdefault(_key(row, (*axes, "engine", "encoder", "method"), ("seed",)), []).append(row)
    merged = []
    for group in groups.values():
        row = dict(group[0], seeds=len(group), cell=re.sub(r"-s\d+$", "", group[0]["cell"]))
        numeric = [
            key for key in row if key.startswith(("test_", "latency_")) or key in ("sqnr_db", "size_mb")
        ]
        for column in numeric:
            values = [found for member in group if (found := value(member, column)) is not None]
            row[column] = statistics.fmean(values) if values else None
            row[f"{column}_std"] = statistics.stdev(values) if len(values) > 1 else None
        if len(group) > 1:
            row["same_as"] = None
        merged.append(row)
    return merged


def seed_spread(rows: Iterable[Row], axes: Sequence[str], column: str) -> float:
    """Return the pooled standard deviation of a column over seeds; 0 with a single seed."""
    deviations = [row.get(f"{column}_std") for row in over_seeds(rows, axes) if is_int8(row)]
    known = [deviation for deviation in deviations if deviation is not None]
    return math.sqrt(statistics.fmean(deviation**2 for deviation in known)) if known else 0.0


def pareto_front(rows: Sequence[Row], measures: Sequence[Measure]) -> list[str]:
    """Return the cells that no other cell beats: as good in every measure and better in one."""
    points = {}
    for row in rows:
        figures = [value(row, measure.column) for measure in measures]
        if row["status"] == "ok" and None not in figures:
            pairs = zip(figures, measures, strict=True)
            points[row["cell"]] = [
                x if measure.higher_is_better else -x for x, measure in pairs if x is not None
            ]
    return [
        cell for cell, point in points.items() if not any(_beats(other, point) for other in points.values())
    ]


def _beats(a: list[float], b: list[float]) -> bool:
    return a != b and all(x >= y for x, y in zip(a, b, strict=True))


def effects(rows: Sequence[Row], axes: Sequence[str]) -> list[Effect]:
    """Return what each step along each axis does to the int8 networks, from paired cells only."""
    cells = [row for row in rows if is_int8(row)]
    noise = max(SSIM.tie, seed_spread(rows, axes, "test_ssim"))
    found = []
    for axis in axes:
        if axis == "seed":
            continue
        values = list(dict.fromkeys(row.get(axis) for row in cells))
        by_place = {_key(row, (*axes, "seed", "engine", "encoder"), ()): row for row in cells}
        for i, start in enumerate(values):
            for to in values[i + 1 :]:
                pairs = []
                for row in cells:
                    if row.get(axis) == start:
                        key = _key({**row, axis: to}, (*axes, "seed", "engine", "encoder"), ())
                        if key in by_place:
                            pairs.append((row, by_place[key]))
                if pairs:
                    found.append(_effect(axis, start, to, pairs, noise))
    return found


def _effect(axis: str, start: Any, to: Any, pairs: list[tuple[Row, Row]], noise: float) -> Effect:
    def differences(column: str) -> tuple[float, ...]:
        figures = [(value(a, column), value(b, column)) for a, b in pairs]
        return tuple(b - a for a, b in figures if a is not None and b is not None)

    same = sum(bool(a.get("graph_hash")) and a.get("graph_hash") == b.get("graph_hash") for a, b in pairs)
    return Effect(axis, start, to, differences("test_ssim"), differences("sqnr_db"), len(pairs), same, noise)


def verdict(effect: Effect) -> str:
    """Say in words what the SSIM differences of an effect show, and what they do not."""
    if effect.identical == effect.pairs:
        return "nothing: the int8 networks are the same"
    if not effect.ssim:
        return "no figures"
    if max(map(abs, effect.ssim)) <= effect.noise:
        return f"within noise ({effect.noise:.3f} SSIM)"
    up = sum(difference > effect.noise for difference in effect.ssim)
    down = sum(difference < -effect.noise for difference in effect.ssim)
    if up and down:
        return f"better in {up}, worse in {down} of {len(effect.ssim)} pairs: depends on the other axes"
    word, count = ("better", up) if up else ("worse", down)
    return f"{word} in {count} of {len(effect.ssim)} pairs, never the other way"


def _key(row: Row, columns: Iterable[str], without: Iterable[str]) -> tuple:
    names = sorted(set(columns) - set(without))
    return tuple(str(row.get(name)) for name in names)
