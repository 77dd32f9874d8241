"""Latencies of a timing class: networks that run the same operators have one latency, and the rows show it once."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.special import stdtrit

from grid.results.ranking import Row, processor_of, value
from quant.engines.catalog import is_exported

FEWEST_SESSIONS = 3
"""From so many measurements on, the interval is over them: loads of one measurement share its minute."""
_LOGARITHMIC = ("latency_ms_p50", "latency_ms_p90")
Interval = tuple[float, float, float]


def pooled_latencies(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with the latency of their timing class, and with the ratio to their engine's float network.

    Rows of one ``timing_class`` on one processor get its ``latency_ratio`` with an interval over all measurements, and
    its milliseconds; ``latency_sessions`` counts the measurements, ``latency_as`` names the first of the rows, and
    ``latency_own_ratio`` (``_low``, ``_high``) keeps what the row's own measurement says. Rows of former versions,
    which have no class, stay as they are.
    """
    classes: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.get("timing_class") and row.get("load_ratios") and processor_of(row):
            classes.setdefault((str(row["timing_class"]), str(processor_of(row))), []).append(row)
    pooled = {id(row): _pooled(row, members) for members in classes.values() for row in members}
    return with_engine_ratios([pooled.get(id(row), row) for row in rows])


def _pooled(row: Row, members: Sequence[Row]) -> Row:
    """One row of a class; cells that are the same network share a measurement, which counts once."""
    sessions = {str(one.get("timing_session") or one["cell"]): one for one in members}
    ratio, low, high = pooled_interval([_loads(one) for one in sessions.values()])
    own = {f"latency_own_ratio{end}": row.get(f"latency_ratio{end}") for end in ("", "_low", "_high")}
    means = {}
    for column in _LOGARITHMIC:
        figures = [found for one in sessions.values() if (found := value(one, column)) is not None]
        means[column] = math.exp(statistics.fmean(map(math.log, figures))) if figures else None
    first = members[0]["cell"]
    return {
        **row,
        **own,
        **means,
        "latency_ratio": ratio,
        "latency_ratio_low": low,
        "latency_ratio_high": high,
        "latency_sessions": len(sessions),
        "latency_as": None if first == row["cell"] else first,
    }


def pooled_interval(sessions: Sequence[Sequence[float]]) -> Interval:
    """Return (ratio, low, high) of the loads' ratios of several measurements of one class.

    The ratio is the geometric mean over measurements. The 95 % interval is Student's t over the level that varies: over
    the measurements from 3 on, and over all loads where there are fewer. Of a single load it is unknown (0, infinity).
    """
    logs = [[math.log(ratio) for ratio in loads] for loads in sessions]
    means = [statistics.fmean(loads) for loads in logs]
    figures = means if len(means) >= FEWEST_SESSIONS else [one for loads in logs for one in loads]
    middle = statistics.fmean(means)
    if len(figures) < 2:
        return math.exp(middle), 0.0, math.inf
    half = float(stdtrit(len(figures) - 1, 0.975)) * statistics.stdev(figures) / math.sqrt(len(figures))
    return math.exp(middle), math.exp(middle - half), math.exp(middle + half)


def with_engine_ratios(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with ``engine_ratio`` (``_low``, ``_high``): to the fastest float network of the same engine.

    Of PyTorch's kernels that is the fastest of its float baselines in the grid, of an engine with files its own float
    file, on the same processor. Intervals are combined in logarithms, as of independent figures; where one of the two
    is unknown, so is that of the ratio.
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
        if reference is None or value(row, "latency_ratio") is None:
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


def _loads(row: Row) -> list[float]:
    return [float(one) for one in str(row["load_ratios"]).split()]
