"""What the rows say: which is best, what is a tie, what an axis does. Plain numbers, no printing."""

import itertools
import math
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from grid.results.intervals import mean_interval

Row = dict[str, Any]


@dataclass(frozen=True)
class Measure:
    """A column that ranks rows; two values tie up to ``tie`` (absolute) or ``tie_relative``."""

    column: str
    name: str
    title: str
    higher_is_better: bool
    tie: float = 0.0
    tie_relative: float = 0.0

    @property
    def of_processor(self) -> bool:
        """Whether it is a latency: one of another processor says nothing about it."""
        return is_latency(self.column)


MSE = Measure("test_mse", "MSE", "MSE", False, tie_relative=0.01)
SSIM = Measure("test_ssim", "SSIM", "SSIM", True, tie=0.001)
SQNR = Measure("sqnr_db", "SQNR", "SQNR dB", True, tie=0.1)
SIZE = Measure("size_mb", "size", "size MB", False, tie_relative=0.005)
LATENCY = Measure("latency_ratio", "latency", "x float latency", False)
RECIPE = ("fuse_bn", "granularity", "method")
MEASURES = (MSE, SSIM, SQNR, SIZE, LATENCY)
UNKNOWN = "unknown"
"""The processor of a latency whose row names none."""


@dataclass(frozen=True)
class Effect:
    """Paired differences (``to`` minus ``start``) between cells that are equal in all other axes.

    ``identical`` counts the pairs whose two cells are one and the same int8 network. ``size_mb`` is in MB,
    ``latency_ratio`` in float latencies; a pair on two processors has no difference of latencies.
    """

    axis: str
    start: Any
    to: Any
    ssim: tuple[float, ...]
    sqnr_db: tuple[float, ...]
    pairs: int
    identical: int
    noise: float
    size_mb: tuple[float, ...] = ()
    latency_ratio: tuple[float, ...] = ()

    @property
    def ssim_interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean SSIM difference, by Student's t over the pairs; None of fewer than 3."""
        return mean_interval(self.ssim)


def is_int8(row: Row) -> bool:
    """True for a measured int8 network."""
    return bool(row["status"] == "ok" and row["method"] != "fp32")


def value(row: Row, column: str) -> float | None:
    """Return the figure, or None where there is none (missing or NaN)."""
    found = row.get(column)
    return None if found is None or found == "" or math.isnan(float(found)) else float(found)


def is_latency(column: str) -> bool:
    """Whether a column holds times of a forward pass, which depend on the processor."""
    return column.startswith("latency_") or column == "profiler_step_ms"


def processor_of(row: Row) -> str | None:
    """Return the CPU model that the row's latency is of; None of a row that has no latency."""
    timed = any(value(row, column) is not None for column in ("latency_ratio", "latency_ms_p50"))
    return (row.get("cpu_model") or UNKNOWN) if timed else None


def processors(rows: Iterable[Row]) -> list[str]:
    """Return the CPU models that latencies of the rows are of, in the order of the rows."""
    return [name for name in dict.fromkeys(map(processor_of, rows)) if name is not None]


def contenders(rows: Iterable[Row]) -> list[Row]:
    """Return the measured int8 rows, each network once (``same_as`` rows left out)."""
    return [row for row in rows if is_int8(row) and not row.get("same_as")]


def best(rows: Sequence[Row], measure: Measure, noise: float = 0.0) -> tuple[str, list[str]] | None:
    """Return the best cell among ``rows`` and those that tie with it; None where no row has the figure.

    Among latencies of several processors none is the best: there it is None too. Latency ratios tie when their
    intervals overlap, other figures when they differ by no more than the measure's tie or ``noise``.
    """
    rows = [row for row in rows if value(row, measure.column) is not None]
    if not rows or (measure.of_processor and len(processors(rows)) > 1):
        return None
    first = rows[0]
    for row in rows[1:]:
        first = _ordered(first, row, measure)[0]
    ties = [row["cell"] for row in rows if row is not first and _tie(first, row, measure, noise)]
    return first["cell"], ties


def _tie(first: Row, other: Row, measure: Measure, noise: float) -> bool:
    a, b = float(first[measure.column]), float(other[measure.column])
    if measure is LATENCY:
        high, low = value(first, "latency_ratio_high"), value(other, "latency_ratio_low")
        return a == b if high is None or low is None else low <= high
    return abs(a - b) <= max(measure.tie, measure.tie_relative * abs(a), noise)


def axes_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the columns that are axes: the recipe's three, and every other setting that the int8 rows vary.

    A setting is ``engine``, ``encoder``, ``weight_bits`` or a column with a dot in its name (``qat.epochs``); ``seed``
    is none.
    """
    settings = {key: None for row in rows for key in row if key in ("engine", "encoder", "weight_bits") or "." in key}
    cells = [row for row in rows if row["method"] != "fp32"]
    return (*RECIPE, *(key for key in settings if len({str(row.get(key)) for row in cells}) > 1))


def recipe_of(cell: str) -> str:
    """Return the name of a cell's recipe: without the ``-s<seed>`` at its end."""
    return re.sub(r"-s\d+$", "", cell)


def several_seeds(rows: Iterable[Row]) -> bool:
    """Whether the int8 rows were measured with more than one seed."""
    return len({row.get("seed") for row in rows if is_int8(row)}) > 1


def compared(rows: Sequence[Row]) -> list[Row]:
    """Return the rows as figures show them: a row a recipe where there are several seeds, else as they are."""
    return over_seeds(rows) if several_seeds(rows) else list(rows)


_MERGED: dict[str, Callable[[list[float]], float]] = {"latency_ratio_low": min, "latency_ratio_high": max}
"""An interval over seeds holds those of all of them; other figures are means."""


def over_seeds(rows: Iterable[Row]) -> list[Row]:
    """Return one row a recipe: means over its measured seeds, ``<column>_std``, ``seeds`` (their number).

    Rows that were not measured are left out; a recipe with one seed keeps its row and has no deviation. Seeds that
    were timed on different processors have no latency in common: see ``grid.results.processors`` for those of each.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row["status"] == "ok":
            groups.setdefault(recipe_of(row["cell"]), []).append(row)
    merged = []
    for name, group in groups.items():
        row = dict(group[0], seeds=len(group), cell=name)
        timed_on = processors(group)
        if len(timed_on) == 1:
            row["cpu_model"] = timed_on[0]
        elif timed_on:
            row |= {key: None for key in row if is_latency(key) or key == "cpu_model"}
        numeric = [key for key in row if key.startswith(("test_", "latency_")) or key in ("sqnr_db", "size_mb")]
        for column in numeric:
            members = [] if is_latency(column) and len(timed_on) > 1 else group
            values = [found for member in members if (found := value(member, column)) is not None]
            row[column] = _MERGED.get(column, statistics.fmean)(values) if values else None
            row[f"{column}_std"] = statistics.stdev(values) if len(values) > 1 else None
        if len(group) > 1:
            row["same_as"] = None
        merged.append(row)
    return merged


def seed_spread(rows: Iterable[Row], column: str) -> float:
    """Return the pooled standard deviation of a column over seeds; 0 with a single seed."""
    deviations = [row.get(f"{column}_std") for row in over_seeds(rows) if is_int8(row)]
    known = [deviation for deviation in deviations if deviation is not None]
    return math.sqrt(statistics.fmean(deviation**2 for deviation in known)) if known else 0.0


def pareto_front(rows: Sequence[Row], measures: Sequence[Measure]) -> list[str]:
    """Return the cells that no other cell beats: nowhere worse and somewhere better, by more than a tie.

    Where a latency is among the measures, a cell is beaten by cells on its own processor alone.
    """
    whole = [
        row
        for row in rows
        if row["status"] == "ok" and all(value(row, measure.column) is not None for measure in measures)
    ]
    apart = any(measure.of_processor for measure in measures)
    rivals: dict[str | None, list[Row]] = {}
    for row in whole:
        rivals.setdefault(processor_of(row) if apart else None, []).append(row)
    beaten = {
        id(row) for group in rivals.values() for row in group if any(_beats(other, row, measures) for other in group)
    }
    return [row["cell"] for row in whole if id(row) not in beaten]


def _beats(a: Row, b: Row, measures: Sequence[Measure]) -> bool:
    apart = [measure for measure in measures if not _tie(*_ordered(a, b, measure), measure, 0.0)]
    return bool(apart) and all(_ordered(a, b, measure)[0] is a for measure in apart)


def _ordered(a: Row, b: Row, measure: Measure) -> tuple[Row, Row]:
    """The better one first."""
    sign = 1 if measure.higher_is_better else -1
    return (a, b) if sign * float(a[measure.column]) >= sign * float(b[measure.column]) else (b, a)


def effects(rows: Sequence[Row]) -> list[Effect]:
    """Return what each step along each axis does to the int8 networks, from paired cells only."""
    cells, axes = [row for row in rows if is_int8(row)], axes_of(rows)
    noise = max(SSIM.tie, seed_spread(rows, "test_ssim"))
    places: dict[tuple[str, ...], list[Row]] = {}
    for row in cells:
        places.setdefault(_place(row, axes), []).append(row)
    found = []
    for axis in axes:
        values = list(dict.fromkeys(row.get(axis) for row in cells))
        for start, to in itertools.combinations(values, 2):
            pairs = []
            for row in (row for row in cells if row.get(axis) == start):
                partners = places.get(_place({**row, axis: to}, axes), [])
                # Cells that differ in something the rows do not show are no pair of anything.
                if len(partners) == len(places[_place(row, axes)]) == 1:
                    pairs.append((row, partners[0]))
            if pairs:
                found.append(_effect(axis, start, to, pairs, noise))
    return found


def _effect(axis: str, start: Any, to: Any, pairs: list[tuple[Row, Row]], noise: float) -> Effect:
    def differences(column: str) -> tuple[float, ...]:
        alike = [(a, b) for a, b in pairs if not is_latency(column) or processor_of(a) == processor_of(b)]
        figures = [(value(a, column), value(b, column)) for a, b in alike]
        return tuple(b - a for a, b in figures if a is not None and b is not None)

    same = sum(bool(a.get("graph_hash")) and a.get("graph_hash") == b.get("graph_hash") for a, b in pairs)
    ssim, sqnr_db = differences("test_ssim"), differences("sqnr_db")
    costs = differences("size_mb"), differences("latency_ratio")
    return Effect(axis, start, to, ssim, sqnr_db, len(pairs), same, noise, *costs)


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


def _place(row: Row, axes: Iterable[str]) -> tuple[str, ...]:
    return tuple(str(row.get(name)) for name in (*axes, "seed"))
