"""The operators of an int8 network beside those of a float network: times by kind, and what of them is measured."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from grid.planning.output_files import LATENCIES
from grid.results.ranking import Row, value
from quant.operator_times.operator_time import KINDS, OperatorTime
from quant.operator_times.table import read_operator_times

CANDIDATE, REFERENCE = "candidate", "reference"
"""Names in ``operators.csv``; the same order as the columns of ``latencies.npy``."""


@dataclass(frozen=True)
class NetworkTimes:
    """One network on its engine: its operators, and its latency in the load in which they were timed.

    ``cell`` is empty for PyTorch's float network that is timed beside every cell.
    """

    cell: str
    operators: tuple[OperatorTime, ...]
    latency_ms: float

    def ms(self, kind: str | None = None, number_format: str | None = None) -> float:
        """Milliseconds in operators of a kind and a format (None: any)."""
        return sum(
            one.us / 1e3
            for one in self.operators
            if kind in (None, one.kind) and number_format in (None, one.number_format)
        )

    @property
    def coverage(self) -> float:
        """The operators' sum over the latency; above 1 where profiling took its time."""
        return self.ms() / self.latency_ms

    @property
    def outside_ms(self) -> float:
        """What of the latency is in no operator; 0 where profiling took longer."""
        return max(self.latency_ms - self.ms(), 0.0)

    def times(self, factor: float) -> "NetworkTimes":
        """All of it so many times as long."""
        operators = tuple(replace(one, us=one.us * factor) for one in self.operators)
        return NetworkTimes(self.cell, operators, self.latency_ms * factor)


@dataclass(frozen=True)
class Beside:
    """An int8 network beside a float one, and the ratio of their latencies."""

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
    Figures of another measurement are scaled by the latency of PyTorch's float network in both: it was timed in turns
    with each, and tells how fast the machine was then. None where the engine does not tell.
    """
    told = _read(files.get(row["cell"]))
    ratio, engine_ratio = value(row, "latency_ratio"), value(row, "engine_ratio")
    if CANDIDATE not in told or ratio is None:
        return None
    own = replace(told[CANDIDATE], cell=row["cell"])
    name = str(row.get("engine_float") or "")
    other = _read(files.get(name))
    if engine_ratio is not None and other.keys() >= {CANDIDATE, REFERENCE} and REFERENCE in told:
        factor = told[REFERENCE].latency_ms / other[REFERENCE].latency_ms
        return Beside(own, replace(other[CANDIDATE], cell=name).times(factor), engine_ratio)
    return Beside(own, told[REFERENCE], ratio) if REFERENCE in told else None


def _read(file: Path | None) -> dict[str, NetworkTimes]:
    """The networks of one measurement, with the latencies of its last load."""
    if file is None:
        return {}
    times = np.load(file.parent / LATENCIES)
    last = times[times[:, 2] == times[-1, 2]]
    latency_ms = dict(zip((CANDIDATE, REFERENCE), 1e3 * np.median(last[:, :2], axis=0), strict=True))
    found = read_operator_times(file)
    return {name: NetworkTimes("", tuple(one), float(latency_ms[name])) for name, one in found.items()}
