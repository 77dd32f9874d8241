"""Cells among each other: the best and what cannot be told from it, rank groups, and the Pareto front."""

from collections.abc import Sequence

import numpy as np

from grid.results.comparisons.costs import cost_words
from grid.results.comparisons.evidence import Evidence
from grid.results.comparisons.image_tables import TEST
from grid.results.comparisons.subjects import Subjects, differences
from grid.results.comparisons.verdicts import (
    BETTER,
    LEVEL,
    WORSE,
    half_widths,
    holm_levels,
    p_values,
    worded,
)
from grid.results.ranking import Measure, Row, processor_of, processors, value

_BLOCK = 256
SURELY_WITHIN = 3.0
"""Margins that a cell which may be taken for the best loses at the most, where its loss is beyond one by estimate."""
Matrix = tuple[np.ndarray, np.ndarray]
"""Gains of cells over others (positive is better), and what is told apart (1 better, -1 worse, 0 not), [M, N]."""


def best(
    rows: Sequence[Row], measure: Measure, evidence: Evidence | None = None, split: str = TEST
) -> tuple[str, list[str]] | None:
    """Return the best cell among ``rows`` and those that cannot be told from it; None where no row has the figure.

    Among latencies of several processors none is the best: there it is None too. The others are one family of
    comparisons with the best. Without figures by image it is the margin that tells apart.
    """
    return _best(rows, measure, evidence, split, cautious=False)


def as_good(
    rows: Sequence[Row], measure: Measure, evidence: Evidence | None = None, split: str = TEST
) -> tuple[str, list[str]] | None:
    """Return the best cell and those that may be taken for it: in accuracy, not all that is undecided.

    Where little was measured everything is; that is no reason to take what looks worse. So the estimate lies within the
    margin of the best, or the whole interval within three of them.
    """
    return _best(rows, measure, evidence, split, cautious=True)


def _best(
    rows: Sequence[Row],
    measure: Measure,
    evidence: Evidence | None,
    split: str,
    cautious: bool,
) -> tuple[str, list[str]] | None:
    evidence, column = evidence or Evidence(rows), measure.on(split)
    rows = [row for row in rows if value(row, column) is not None]
    if not rows or (measure.of_processor and len(processors(rows)) > 1):
        return None
    sign = 1.0 if measure.higher_is_better else -1.0
    figures = sign * np.array([float(row[column]) for row in rows])
    first = int(figures.argmax())
    rest = np.array([place for place in range(len(rows)) if place != first], dtype=int)
    if not len(rest):
        return rows[first]["cell"], []
    margins = np.full(len(rest), evidence.margins[measure.key].of(abs(figures[first])))
    if measure.by_image:
        subjects = evidence.subjects([row["cell"] for row in rows], measure, split)
        words, halves = _against(subjects, rest, first, margins)
        losses = figures[first] - figures[rest]
        close = (losses <= margins) | (losses + halves <= SURELY_WITHIN * margins)
        kept = (words != WORSE) & (close | (not cautious))
    else:
        kept = cost_words([rows[place] for place in rest], [rows[first]], measure, margins[:1])[:, 0] != WORSE
    return rows[first]["cell"], [rows[place]["cell"] for place in rest[kept]]


def _against(subjects: Subjects, cells: np.ndarray, other: int, margins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The words of cells against one other and the half widths of their intervals, [M]; infinite where none is tested.

    There the words are by the margin and twice what redraws move.
    """
    found = differences(subjects, cells, np.array([other]))
    estimates, variances, degrees = (part[:, 0] for part in (found.estimates, found.variances, found.degrees))
    levels = holm_levels(p_values(estimates, variances, degrees))
    gains = subjects.sign * estimates
    halves = half_widths(variances, degrees, levels, subjects.one_image)
    words = worded(gains, halves, margins, found.known[:, 0])
    by_margin = worded(gains, 2.0 * np.sqrt(found.by_redraw[:, 0]), margins)
    return np.where(degrees > 0, words, by_margin), halves


def rank_groups(rows: Sequence[Row], measure: Measure, evidence: Evidence | None = None) -> list[tuple[str, ...]]:
    """Return groups of cells, the best first, within which no pair is told apart; a cell may be in several.

    All pairs are one family. A group is a run of the ranking that no longer run contains (Piepho 2004 shows such
    groups as letters).
    """
    evidence = evidence or Evidence(rows)
    ranked = [row for row in rows if value(row, measure.column) is not None]
    ranked.sort(key=lambda row: float(row[measure.column]), reverse=measure.higher_is_better)
    if not ranked:
        return []
    apart = _apart(ranked, measure, evidence) != 0
    groups: list[tuple[int, int]] = []
    for start in range(len(ranked)):
        end = start + 1
        while end < len(ranked) and not apart[start:end, end].any():
            end += 1
        if not groups or end > groups[-1][1]:
            groups.append((start, end))
    return [tuple(row["cell"] for row in ranked[start:end]) for start, end in groups]


def _apart(rows: Sequence[Row], measure: Measure, evidence: Evidence) -> np.ndarray:
    """Which of all pairs are told apart as one family: 1 better, -1 worse, 0 not, [n, n]."""
    if not measure.by_image:
        margins = np.array([evidence.margins[measure.key].of(float(row[measure.column])) for row in rows])
        return _signs(cost_words(rows, rows, measure, margins))
    subjects, places = evidence.subjects([row["cell"] for row in rows], measure), np.arange(len(rows))
    found = differences(subjects, places, places)
    upper = np.triu_indices(len(rows), 1)
    levels = np.full(found.estimates.shape, LEVEL)
    levels[upper] = holm_levels(p_values(*(part[upper] for part in (found.estimates, found.variances, found.degrees))))
    levels.T[upper] = levels[upper]
    margins = np.maximum(*np.meshgrid(*2 * [[subjects.margin.of(figure) for figure in subjects.figures]]))
    halves = np.where(found.degrees > 0, half_widths(found.variances, found.degrees, levels, subjects.one_image), 0.0)
    return _signs(worded(subjects.sign * found.estimates, halves, margins, found.known))


def _signs(words: np.ndarray) -> np.ndarray:
    return np.asarray((words == BETTER).astype(int) - (words == WORSE).astype(int))


def pareto_front(rows: Sequence[Row], measures: Sequence[Measure], evidence: Evidence | None = None) -> list[str]:
    """Return the cells that no other cell beats: better by a test in one measure, and as good in all others.

    As good is: not worse by a test, nor, in accuracy, by more than the margin. Each cell is compared with all its
    rivals, corrected for their number. Where a latency is among the measures, a cell is beaten by cells on its own
    processor alone.
    """
    evidence = evidence or Evidence(rows)
    whole = [
        row
        for row in rows
        if row["status"] == "ok" and all(value(row, measure.column) is not None for measure in measures)
    ]
    apart = any(measure.of_processor for measure in measures)
    rivals: dict[str | None, list[Row]] = {}
    for row in whole:
        rivals.setdefault(processor_of(row) if apart else None, []).append(row)
    beaten = {row["cell"] for group in rivals.values() for row in _beaten(group, measures, evidence)}
    return [row["cell"] for row in whole if row["cell"] not in beaten]


def _beaten(rows: Sequence[Row], measures: Sequence[Measure], evidence: Evidence) -> list[Row]:
    subjects = {
        measure: evidence.subjects([row["cell"] for row in rows], measure) for measure in measures if measure.by_image
    }
    found = []
    for start in range(0, len(rows), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(rows)))
        better, worse = (np.zeros((len(rows), len(block)), dtype=bool) for _ in range(2))
        for measure in measures:
            gains, signs = _rivals(rows, block, measure, subjects.get(measure), evidence)
            margins = evidence.margins[measure.key]
            limits = np.array([margins.of(float(row[measure.column])) for row in rows[start : start + _BLOCK]])
            better |= signs > 0
            worse |= (signs < 0) | (bool(measure.by_image) & (signs == 0) & (gains < -limits[None]))
        found += [rows[start + int(place)] for place in np.flatnonzero((better & ~worse).any(axis=0))]
    return found


def _rivals(
    rows: Sequence[Row], block: np.ndarray, measure: Measure, subjects: Subjects | None, evidence: Evidence
) -> Matrix:
    """All rows against those of a block, [n, block]; Bonferroni's correction, for the rivals of each."""
    figures = np.array([float(row[measure.column]) for row in rows])
    sign = 1.0 if measure.higher_is_better else -1.0
    gains = sign * (figures[:, None] - figures[block][None])
    margins = np.array([evidence.margins[measure.key].of(figure) for figure in figures[block]])
    if subjects is None:
        return gains, _signs(cost_words(rows, rows[int(block[0]) : int(block[-1]) + 1], measure, margins))
    found = differences(subjects, np.arange(len(rows)), block)
    halves = half_widths(found.variances, found.degrees, LEVEL / max(len(rows) - 1, 1), subjects.one_image)
    halves = np.where(found.degrees > 0, halves, 0.0)
    return gains, _signs(worded(gains, halves, margins[None], found.known))
