"""Sizes and latencies against each other: sizes are exact, latencies have intervals of their own."""

from collections.abc import Sequence

import numpy as np

from grid.results.comparisons.verdicts import BETTER, EQUIVALENT, UNDECIDED, WORSE
from grid.results.ranking import Measure, Row, value


def cost_bounds(rows: Sequence[Row], measure: Measure) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The figure of each row and its interval, [n] each; the figure itself where it has no interval."""
    figures = np.array([_figure(row, measure.column) for row in rows])
    if measure.column != "latency_ratio":
        return figures, figures, figures
    ends = (np.array([_figure(row, f"{measure.column}_{end}") for row in rows]) for end in ("low", "high"))
    low, high = (np.where(np.isnan(end), figures, end) for end in ends)
    return figures, low, high


def cost_words(rows: Sequence[Row], others: Sequence[Row], measure: Measure, margins: np.ndarray) -> np.ndarray:
    """The word for each of ``rows`` against each of ``others``, [M, N], within ``margins`` [N].

    They are told apart where their intervals do not overlap and the figures differ by more than the margin. Rows of one
    timing class run the same operators on the same shapes, whatever was measured.
    """
    figures, low, high = (found[:, None] for found in cost_bounds(rows, measure))
    others_figures, others_low, others_high = (found[None] for found in cost_bounds(others, measure))
    gains = others_figures - figures  # lower is better
    apart = ((high < others_low) | (low > others_high)) & (np.abs(gains) > margins[None])
    inside = (others_high - low < margins[None]) & (others_low - high > -margins[None]) | (gains == 0)
    words = np.where(apart, np.where(gains > 0, BETTER, WORSE), np.where(inside, EQUIVALENT, UNDECIDED))
    exact = measure.column != "latency_ratio"  # a figure without an interval has nothing to be undecided about
    words = np.where(exact & ~apart, EQUIVALENT, words)
    if measure.of_processor:
        classes, other_classes = (
            np.array([str(row.get("timing_class") or "") for row in some]) for some in (rows, others)
        )
        alike = (classes[:, None] == other_classes[None]) & (classes[:, None] != "")
        words = np.where(alike, EQUIVALENT, words)
    return np.asarray(words)


def _figure(row: Row, column: str) -> float:
    found = value(row, column)
    return float("nan") if found is None else found
