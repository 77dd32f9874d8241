"""Comparisons of cells as tests, a family at a time: paired over images, by scene, corrected for their number."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from grid.results.comparisons.costs import cost_bounds, cost_words
from grid.results.comparisons.evidence import Evidence
from grid.results.comparisons.image_tables import TEST
from grid.results.comparisons.roots import root_names
from grid.results.comparisons.subjects import Differences, Subjects, differences
from grid.results.comparisons.verdicts import (
    UNDECIDED,
    Needed,
    half_widths,
    holm_levels,
    needed,
    p_values,
    quantile_of,
    worded,
)
from grid.results.ranking import Measure, Row, is_int8, over_seeds, recipe_of, value

RECIPES, NETWORKS, ESTIMATES, INTERVALS = "recipes", "networks", "estimates", "intervals"
"""What a verdict is about: recipes, whose networks may be drawn again; these two networks alone, as nothing is known of
redraws; the estimates alone, as there are no figures by image of two scenes or more; or costs with intervals."""


@dataclass(frozen=True)
class Comparison:
    """``cell`` against ``other`` in a measure: the difference of their figures, cell less other, in its unit.

    ``low`` and ``high`` are the interval that the verdict (better, worse, equivalent, undecided) is read from, at the
    level that Holm's correction of the whole family leaves to it; None where nothing was tested. ``margin`` is in the
    measure's unit, ``needed`` what would decide, and ``scenes`` the clusters that the test stands on.
    """

    cell: str
    other: str
    measure: Measure
    estimate: float
    low: float | None
    high: float | None
    verdict: str
    scope: str
    margin: float
    needed: Needed
    images: int
    scenes: int
    same_network: bool

    @property
    def gain(self) -> float:
        """The difference as a gain: positive is better."""
        return self.estimate if self.measure.higher_is_better else -self.estimate


def compare(
    evidence: Evidence, pairs: Sequence[tuple[str, str]], measure: Measure, split: str = TEST
) -> list[Comparison]:
    """Each pair of cells or recipes as one family of comparisons; pairs without a figure are left out."""
    if not measure.by_image:
        return _costs(evidence, pairs, measure)
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    if not names:
        return []
    subjects = evidence.subjects(names, measure, split)
    places = {name: place for place, name in enumerate(names) if not np.isnan(subjects.figures[place])}
    kept = [pair for pair in pairs if all(name in places for name in pair)]
    return family(subjects, [(places[cell], places[other]) for cell, other in kept])


def against_float(evidence: Evidence, measure: Measure, split: str = TEST) -> list[Comparison]:
    """Each int8 network against the float network that it started from, in the order of the rows, as one family.

    Recipes where there are several seeds; the same network under another name is left out.
    """
    roots = root_names(evidence.rows)
    merged = over_seeds(evidence.rows)
    first: dict[str, str | None] = {}
    for row in evidence.rows:
        if row["status"] == "ok":
            first.setdefault(recipe_of(row["cell"]), roots[row["cell"]])
    pairs = [(row["cell"], recipe_of(root)) for row in merged if _own(row) and (root := first[row["cell"]])]
    return compare(evidence, pairs, measure, split)


def _own(row: Row) -> bool:
    return is_int8(row) and not row.get("same_as")


def family(subjects: Subjects, pairs: Sequence[tuple[int, int]]) -> list[Comparison]:
    """The comparisons of one family; pairs are places in ``subjects``."""
    if not pairs:
        return []
    cells, others = np.array(pairs).T
    found = _of_pairs(subjects, cells, others)
    margins = np.array([subjects.margin.of(figure) for figure in subjects.figures[others]])
    levels = holm_levels(p_values(found.estimates, found.variances, found.degrees))
    halves = np.where(found.same, 0.0, half_widths(found.variances, found.degrees, levels, subjects.one_image))
    words = worded(subjects.sign * found.estimates, halves, margins, found.known)
    tested = (found.degrees > 0) | found.same
    comparisons = []
    for place, (cell, other) in enumerate(pairs):
        estimate, half = float(found.estimates[place]), float(halves[place])
        scope = RECIPES if found.known[place] else NETWORKS
        word = str(words[place])
        comparisons.append(
            Comparison(
                subjects.names[cell],
                subjects.names[other],
                subjects.measure,
                estimate,
                estimate - half if tested[place] else None,
                estimate + half if tested[place] else None,
                word,
                scope if tested[place] else ESTIMATES,
                float(margins[place]),
                _needed(subjects, found, place, half, float(margins[place]), pairs[place])
                if word == UNDECIDED and tested[place]
                else Needed(),
                subjects.images,
                subjects.scenes,
                bool(found.same[place]),
            )
        )
    return comparisons


def _needed(
    subjects: Subjects, found: Differences, place: int, half: float, margin: float, pair: tuple[int, int]
) -> Needed:
    variance = float(found.variances[place])
    quantile = quantile_of(half, variance, subjects.one_image)
    parts = float(found.by_scene[place]), float(found.by_redraw[place])
    seeds = int(max(subjects.seeds[list(pair)]))
    return needed(
        float(found.estimates[place]),
        margin,
        *parts,
        quantile,
        (subjects.images, seeds),
        bool(found.known[place]),
        subjects.one_image,
    )


def _of_pairs(subjects: Subjects, cells: np.ndarray, others: np.ndarray) -> Differences:
    """The differences of pairs, [M] each: those with one other together."""
    parts: dict[str, np.ndarray] = {}
    for other in np.unique(others):
        where = np.flatnonzero(others == other)
        found = differences(subjects, cells[where], np.array([other]))
        for name in ("estimates", "by_scene", "by_redraw", "degrees", "known", "same"):
            one = getattr(found, name)[:, 0]
            parts.setdefault(name, np.zeros(len(cells), one.dtype))[where] = one
    return Differences(**parts)


def _costs(evidence: Evidence, pairs: Sequence[tuple[str, str]], measure: Measure) -> list[Comparison]:
    """Sizes and latencies: the interval of a difference holds those of both figures."""
    rows = {row["cell"]: row for row in (*evidence.rows, *over_seeds(evidence.rows)) if row["status"] == "ok"}
    found = []
    for cell, other in pairs:
        one, against = rows[cell], rows[other]
        if value(one, measure.column) is None or value(against, measure.column) is None:
            continue
        (figure, low, high), (base, base_low, base_high) = (
            [float(part[0]) for part in cost_bounds([row], measure)] for row in (one, against)
        )
        margin = evidence.margins[measure.key].of(base)
        word = str(cost_words([one], [against], measure, np.array([margin]))[0, 0])
        same = bool(one.get("graph_hash")) and one.get("graph_hash") == against.get("graph_hash")
        ends = (figure - base, low - base_high, high - base_low)
        found.append(Comparison(cell, other, measure, *ends, word, INTERVALS, margin, Needed(), 0, 0, same))
    return found
