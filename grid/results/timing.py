"""Latencies of a timing class: networks that run the same operators have one latency, and the rows show it once."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.special import stdtrit

from grid.results.ranking import Row, processor_of, value
from quant.engines.catalog import is_exported

FEWEST_SESSIONS = 3
"""From so many measurements on, the interval of a class is over its own: loads of one measurement share its minute."""
COMMON = 2.0
"""What the measurements of a run have in common varies from run to run, by so much of the variance among them.

What else goes on in a machine lasts for minutes. It was 0.2, 0.3, 0.5, 1.7 and 2.7 in five sets of 5 runs
(``latency_noise``).
"""
_GEOMETRIC = ("latency_ms_p50", "latency_ms_p90")
Interval = tuple[float, float, float]
Sessions = Sequence[Sequence[float]]
"""The loads' ratios of each measurement."""


@dataclass(frozen=True)
class Between:
    """How much measurements of one class differ: the standard deviation of their logarithms, on so many degrees."""

    deviation: float
    degrees: int


def pooled_latencies(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with the latency of their timing class, and with the ratio to their engine's float network.

    Rows of one ``timing_class`` on one processor get its ``latency_ratio`` with an interval over all measurements, and
    its milliseconds; ``latency_sessions`` counts the measurements, ``latency_as`` names the first of the rows, and
    ``latency_own_ratio`` (``_low``, ``_high``) keeps what the row's own loads say. Rows of former versions, which have
    no class, stay as they are.
    """
    classes: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.get("timing_class") and row.get("load_ratios") and processor_of(row):
            classes.setdefault((str(row["timing_class"]), str(processor_of(row))), []).append(row)
    sessions = {place: _sessions(members) for place, members in classes.items()}
    pooled = {}
    for place, members in classes.items():
        here = [_ratios(of_class) for (_, processor), of_class in sessions.items() if processor == place[1]]
        shared = _shared(sessions[place], between_measurements(here))
        first = members[0]["cell"]
        for row in members:
            own = {f"latency_own_ratio{end}": row.get(f"latency_ratio{end}") for end in ("", "_low", "_high")}
            pooled[id(row)] = {**row, **own, **shared, "latency_as": None if first == row["cell"] else first}
    return with_engine_ratios([pooled.get(id(row), row) for row in rows])


def _sessions(members: Sequence[Row]) -> list[Row]:
    """A row for each measurement of a class; cells that are the same network share one, which counts once."""
    return list({str(row.get("timing_session") or row["cell"]): row for row in members}.values())


def _shared(sessions: Sequence[Row], between: Between | None) -> Row:
    """What all rows of a class show."""
    ratio, low, high = pooled_interval(_ratios(sessions), between)
    shared: Row = {"latency_ratio": ratio, "latency_ratio_low": low, "latency_ratio_high": high}
    for column in _GEOMETRIC:
        figures = [found for row in sessions if (found := value(row, column)) is not None]
        shared[column] = statistics.geometric_mean(figures) if figures else None
    return {**shared, "latency_sessions": len(sessions)}


def between_measurements(classes: Sequence[Sessions]) -> Between | None:
    """How much measurements of one class differ, pooled over the classes of 3 and more; None where there is none."""
    several = [_means(sessions) for sessions in classes if len(sessions) >= FEWEST_SESSIONS]
    degrees = sum(len(means) - 1 for means in several)
    if not degrees:
        return None
    squares = sum(statistics.variance(means) * (len(means) - 1) for means in several)
    return Between(math.sqrt(squares / degrees), degrees)


def pooled_interval(sessions: Sessions, between: Between | None = None) -> Interval:
    """Return (ratio, low, high) of the loads' ratios of the measurements of one class.

    The ratio is the geometric mean over measurements. The 95 % interval is Student's t over the level that varies: over
    the measurements from 3 on. Of fewer it is that over their loads, or, where that is wider, what ``between`` says
    about measurements of other classes. Of a single load alone it is unknown (0, infinity).

    To the variance of a mean of n comes that of what they have in common: ``COMMON`` of the variance of one.
    """
    means = _means(sessions)
    middle, count = statistics.fmean(means), len(means)
    independent = 1.0 / (COMMON + 1.0 / count)
    if count >= FEWEST_SESSIONS:
        half = _half_width(statistics.stdev(means), independent, count - 1)
    else:
        loads = [math.log(ratio) for ratios in sessions for ratio in ratios]
        half = _half_width(statistics.stdev(loads), len(loads), len(loads) - 1) if len(loads) > 1 else math.inf
        if between is not None:
            borrowed = _half_width(between.deviation, independent, between.degrees)
            half = max(half, borrowed) if len(loads) > 1 else borrowed
    if half == math.inf:
        return math.exp(middle), 0.0, math.inf
    return math.exp(middle), math.exp(middle - half), math.exp(middle + half)


def _half_width(deviation: float, count: float, degrees: int) -> float:
    return float(stdtrit(degrees, 0.975)) * deviation / math.sqrt(count)


def _means(sessions: Sessions) -> list[float]:
    """The mean logarithm of each measurement."""
    return [statistics.fmean(map(math.log, loads)) for loads in sessions]


def _ratios(sessions: Sequence[Row]) -> list[list[float]]:
    return [[float(one) for one in str(row["load_ratios"]).split()] for row in sessions]


def with_engine_ratios(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with ``engine_ratio`` (``_low``, ``_high``): to the fastest float network of the same engine.

    Of PyTorch's kernels that is the fastest of its float baselines in the grid, of an engine with files its own float
    file, on the same processor. Intervals are combined in logarithms, as of independent figures; where one of the two
    is unknown, so is that of the ratio. A device times both in turns: its rows have the ratio already.
    """
    floats: dict[tuple[str, str | None, Any], Row] = {}
    for row in rows:
        ratio = value(row, "latency_ratio")
        if row["method"] == "fp32" and ratio is not None:
            known = floats.setdefault(_place(row), row)
            if ratio < float(known["latency_ratio"]):
                floats[_place(row)] = row
    found = []
    for row in rows:
        reference = floats.get(_place(row))
        if reference is None or value(row, "latency_ratio") is None or row.get("timed_beside"):
            found.append(row)
            continue
        ratio, low, high = (1.0, 1.0, 1.0) if row is reference else _quotient(row, reference)
        columns = {"engine_ratio": ratio, "engine_ratio_low": low, "engine_ratio_high": high}
        found.append({**row, **columns, "engine_float": reference["cell"]})
    return found


def _place(row: Row) -> tuple[str, str | None, Any]:
    """Which float network a row is compared with: its engine's, of its processor and of its encoder."""
    engine = str(row.get("engine") or "")
    return engine if is_exported(engine) else "PyTorch", processor_of(row), row.get("encoder")


def _quotient(row: Mapping[str, Any], reference: Mapping[str, Any]) -> tuple[float, float | None, float | None]:
    middle = math.log(float(row["latency_ratio"])) - math.log(float(reference["latency_ratio"]))
    halves = [_half(row), _half(reference)]
    if None in halves:
        return math.exp(middle), None, None
    half = math.hypot(*(one for one in halves if one is not None))
    return math.exp(middle), math.exp(middle - half), math.exp(middle + half)


def _half(row: Mapping[str, Any]) -> float | None:
    """Half of the interval of a ratio's logarithm."""
    low, high = row.get("latency_ratio_low"), row.get("latency_ratio_high")
    if low is None or high is None or not 0 < float(low) <= float(high) < math.inf:
        return None
    return (math.log(float(high)) - math.log(float(low))) / 2
