"""The rows of a run as results.csv."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from grid.results.ranking import Row
from model.files import write_atomically

RESULT_COLUMNS = (
    "cell", "status", "reason", "note", "fuse_bn", "granularity", "method", "engine", "encoder", "seed",
    "test_mse", "test_ssim", "test_abs_rel", "test_rmse_m", "test_delta1", "sqnr_db", "noise_rms_m", "noise_to_error",
    "val_mse", "val_ssim", "val_abs_rel", "val_rmse_m", "val_delta1", "val_sqnr_db", "simulated_ssim", "float_sites",
    "size_mb", "latency_ms_p50", "latency_ms_p90", "latency_ratio", "latency_ratio_low", "latency_ratio_high",
    "engine_ratio", "engine_ratio_low", "engine_ratio_high", "engine_float", "latency_loads", "latency_sessions",
    "latency_as", "timing_class", "latency_own_ratio", "latency_own_ratio_low", "latency_own_ratio_high", "load_ratios",
    "profiler_step_ms", "graph_hash", "same_as", "best_epoch", "weights_changed", "bn_live_steps",
    "train_s", "artifact", "mlflow_run_id",
)  # fmt: skip


def write_results_csv(rows: Sequence[Row], path: Path) -> Path:
    """Write the rows, RESULT_COLUMNS first and then whatever else they hold; the file is replaced at once.

    true and false are written small, a missing value as nothing.
    """
    further = sorted({key for row in rows for key in row} - set(RESULT_COLUMNS))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*RESULT_COLUMNS, *further])
    for row in rows:
        cells = [row.get(column) for column in (*RESULT_COLUMNS, *further)]
        writer.writerow([str(cell).lower() if isinstance(cell, bool) else cell for cell in cells])
    return write_atomically(path, text.getvalue())
