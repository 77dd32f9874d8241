"""Files of the profile stage with operators that are made up: for tests only."""

from pathlib import Path

import numpy as np

from grid.planning.output_files import LATENCIES, OPERATOR_TIMES
from quant.operator_times.operator_time import CONVERSION, FLOAT, INT8, OperatorTime
from quant.operator_times.table import write_operator_times


def operator(kind: str, ms: float, number_format: str = FLOAT) -> OperatorTime:
    return OperatorTime(f"engine::{kind}", kind, number_format, "", 1e3 * ms)


FLOAT_MS = (operator("convolution", 10), operator("depthwise", 4), operator("resize", 1), operator("outside", 1, ""))
SLOWER = (
    operator("convolution", 8, INT8), operator("depthwise", 16, INT8), operator("resize", 1.4),
    operator("conversion", 2.1, CONVERSION), operator("outside", 2.5, ""),
)  # fmt: skip
FASTER = (
    operator("convolution", 3, INT8), operator("depthwise", 2, INT8), operator("resize", 1.5),
    operator("outside", 1.5, ""),
)  # fmt: skip


def operator_file(folder: Path, candidate, reference=FLOAT_MS, latency_ms: tuple[float, float] = (30.0, 16.0)) -> Path:
    """``operators.csv`` with ``latencies.npy`` beside it."""
    folder.mkdir(parents=True)
    networks = {"candidate": candidate, "reference": reference}
    write_operator_times(folder / OPERATOR_TIMES, {name: times for name, times in networks.items() if times})
    np.save(folder / LATENCIES, np.array([[*(1e-3 * one for one in latency_ms), load] for load in range(3)]))
    return folder / OPERATOR_TIMES
