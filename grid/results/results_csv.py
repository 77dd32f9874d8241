"""The rows of a run as results.csv."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from grid.results.measures import DEPTH, Measures
from grid.results.ranking import SQNR, Row
from model.files import write_atomically

_SETTINGS = (
    "cell", "status", "reason", "note", "fuse_bn", "granularity", "method", "engine", "encoder", "device", "seed",
)  # fmt: skip
_COSTS = (
    "float_sites",
    "size_mb", "latency_ms_p50", "latency_ms_p90", "latency_ratio", "latency_ratio_low", "latency_ratio_high",
    "engine_ratio", "engine_ratio_low", "engine_ratio_high", "engine_float", "latency_loads", "latency_sessions",
    "latency_as", "timing_class", "latency_own_ratio", "latency_own_ratio_low", "latency_own_ratio_high", "load_ratios",
    "profiler_step_ms", "graph_hash", "same_as", "best_epoch", "weights_changed", "bn_live_steps",
    "train_s", "artifact", "mlflow_run_id",
)  # fmt: skip


def result_columns(measures: Measures = DEPTH) -> tuple[str, ...]:
    """The columns that every table of a task's results has, in their order."""
    metrics = (*measures.others[:1], measures.headline, *measures.others[1:])
    noise = (SQNR.column, "noise_rms_m", "noise_to_error") if measures == DEPTH else (SQNR.column,)
    tested = (*(one.column for one in metrics), *noise)
    chosen = (*(one.on("val") for one in metrics), SQNR.on("val"), f"simulated_{measures.headline.key}")
    return (*_SETTINGS, *tested, *chosen, *_COSTS)


def write_results_csv(rows: Sequence[Row], path: Path, measures: Measures = DEPTH) -> Path:
    """Write the rows, ``result_columns`` first and then whatever else they hold; the file is replaced at once.

    true and false are written small, a missing value as nothing.
    """
    columns = result_columns(measures)
    columns = (*columns, *sorted({key for row in rows for key in row} - set(columns)))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        cells = [row.get(column) for column in columns]
        writer.writerow([str(cell).lower() if isinstance(cell, bool) else cell for cell in cells])
    return write_atomically(path, text.getvalue())
