"""The operators of an int8 network beside those of a float network: times by kind, and what of them is measured."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from grid.planning.output_files import LATENCIES
from grid.results.ranking import Row, value
from quant.operator_times.operator_time import KINDS, OUTSIDE, OperatorTime
from quant.operator_times.table import read_operator_times

CANDIDATE, REFERENCE = "candidate", "reference"
"""Names in ``operators.csv``; the same order as the columns of ``latencies.npy``."""


@dataclass(frozen=True)
class NetworkTimes:
    """One network on its engine: all that its latency consists of, by operator, and what is outside of them.

    ``cell`` is empty for PyTorch's float network that is timed beside every cell. ``coverage`` is the sum of the
    operators, as they were profiled, over the latency that was measured before: above 1 where profiling took its time,
    or where the machine had more to do by then.
    """

    cell: str
    operators: tuple[OperatorTime, ...]
    coverage: float

    def ms(self, kind: str | None = None, number_format: str | None = None) -> float:
        """Milliseconds in operators of a kind and a format (None: any); of all together the latency."""
        return sum(
            one.us / 1e3
            for one in self.operators
            if kind in (None, one.kind) and number_format in (None, one.number_format)
        )

    def of_latency(self, latency_ms: float) -> "NetworkTimes":
        """The same shares of another latency: what slows a machine for a while slows all operators alike."""
        factor = latency_ms / self.ms()
        return replace(self, operators=tuple(replace(one, us=one.us * factor) for one in self.operators))


@dataclass(frozen=True)
class Beside:
    """An int8 network beside a float one, with latencies of the ratio that the results have."""

    int8: NetworkTimes
    float_: NetworkTimes
    ratio: float

    def by_kind(self) -> list[tuple[str, float, float]]:
        """Kind, milliseconds of int8 and of float, the largest difference first, without kinds that neither has."""
        found = [(kind, self.int8.ms(kind), self.float_.ms(kind)) for kind in KINDS]
        return sorted((one for one in found if one[1] or one[2]), key=lambda one: -abs(one[1] - one[2]))


def beside_float(row: Row, files: Mapping[str, Path]) -> Beside | None:
    """The operators of an int8 cell beside those of its engine's own float network, where that is in the grid.

    Else beside PyTorch's float network. ``files`` are ``operators.csv`` by cell, with ``latencies.npy`` beside each.
    Milliseconds are shares of the row's latency and of that of the float network, which follows from their ratio: the
    two were profiled at other times, and latencies are measured in turns. None where the engine does not tell.
    """
    told = _read(files.get(row["cell"]))
    latency_ms, ratio, engine_ratio = (value(row, name) for name in ("latency_ms_p50", "latency_ratio", "engine_ratio"))
    if CANDIDATE not in told or latency_ms is None or ratio is None:
        return None
    int8 = replace(told[CANDIDATE], cell=row["cell"]).of_latency(latency_ms)
    name = str(row.get("engine_float") or "")
    own = _read(files.get(name))
    if engine_ratio is not None and CANDIDATE in own:
        return Beside(int8, replace(own[CANDIDATE], cell=name).of_latency(latency_ms / engine_ratio), engine_ratio)
    return Beside(int8, told[REFERENCE].of_latency(latency_ms / ratio), ratio) if REFERENCE in told else None


def _read(file: Path | None) -> dict[str, NetworkTimes]:
    """The networks of one measurement whose operators are told."""
    if file is None:
        return {}
    latency_ms = dict(
        zip((CANDIDATE, REFERENCE), 1e3 * np.median(np.load(file.parent / LATENCIES), axis=0), strict=False)
    )
    found = {}
    for name, operators in read_operator_times(file).items():
        inside = sum(one.us for one in operators if one.kind != OUTSIDE) / 1e3
        found[name] = NetworkTimes("", tuple(operators), float(inside / latency_ms[name]))
    return found
