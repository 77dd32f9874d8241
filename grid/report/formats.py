"""Figures and settings in words, the same in sentences, tables and figures; a missing figure is an en dash."""

from typing import Any

from grid.results.ranking import Row, value

DASH = "–"
DIGITS = {
    "test_mse": 5, "sqnr_db": 2, "size_mb": 3, "test_rmse_m": 3, "latency_ms_p50": 2, "latency_ms_p90": 2,
    "latency_ratio": 2, "latency_ratio_low": 2, "latency_ratio_high": 2, "profiler_step_ms": 2, "train_s": 0,
    "noise_rms_m": 4, "noise_to_error": 3,
}  # fmt: skip
MOST_DIGITS = 4
"""Of metrics that have no number of digits here."""


def digits_of(column: str) -> int:
    """How many digits behind the point a column has."""
    return DIGITS.get(column, MOST_DIGITS)


def figure_text(row: Row, column: str) -> str:
    """Return a figure with its usual digits, or an en dash."""
    figure = value(row, column)
    return DASH if figure is None else f"{figure:.{digits_of(column)}f}"


def ratio_text(row: Row) -> str:
    """Return the latency ratio with its interval, or an en dash."""
    if value(row, "latency_ratio") is None:
        return DASH
    text = f"{figure_text(row, 'latency_ratio')}x"
    if value(row, "latency_ratio_low") is not None and value(row, "latency_ratio_high") is not None:
        text += f" [{figure_text(row, 'latency_ratio_low')}, {figure_text(row, 'latency_ratio_high')}]"
    return text


def setting_text(setting: Any) -> str:
    """Return a setting as in the search space: true, false, a name, or an en dash for none."""
    if setting is None or setting in ("", "none"):
        return DASH
    return str(setting).lower() if isinstance(setting, bool) else str(setting)
