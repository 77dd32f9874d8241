"""What each axis does to the int8 networks, from pairs of cells that are equal in all else."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from grid.results.comparisons.comparison import ESTIMATES, NETWORKS, RECIPES
from grid.results.comparisons.evidence import Evidence
from grid.results.comparisons.steps import Step, pairs_disagree, step_of
from grid.results.comparisons.verdicts import (
    BETTER,
    EQUIVALENT,
    UNDECIDED,
    WORSE,
    half_widths,
    holm_levels,
    needed,
    p_values,
    quantile_of,
    worded,
)
from grid.results.ranking import (
    Measure,
    Row,
    axes_of,
    is_int8,
    is_latency,
    place_of,
    processor_of,
    value,
)

MOST_VALUES = 8
Pair = tuple[Row, Row]


@dataclass(frozen=True)
class StepTest:
    """The mean difference of a step's pairs in a measure, with its interval and its word; see ``Comparison``.

    ``depends``: the pairs disagree by a test, so that the mean says little.
    """

    measure: Measure
    estimate: float
    low: float | None
    high: float | None
    verdict: str
    scope: str
    margin: float
    needed: str
    depends: bool


@dataclass(frozen=True)
class Effect:
    """Paired differences (``to`` minus ``start``) between cells that are equal in all other axes.

    ``identical`` counts the pairs whose two cells are one and the same int8 network. ``size_mb`` is in MB,
    ``latency_ratio`` in float latencies; a pair on two processors has no difference of latencies. ``tests`` are by the
    key of a measure; those of one measure over all steps are one family. ``headline`` are the differences in the task's
    first metric, and ``test`` is theirs. ``members`` are the rows of the pairs.
    """

    axis: str
    start: Any
    to: Any
    headline: tuple[float, ...]
    sqnr_db: tuple[float, ...]
    pairs: int
    identical: int
    size_mb: tuple[float, ...] = ()
    latency_ratio: tuple[float, ...] = ()
    tests: Mapping[str, StepTest] = field(default_factory=dict)
    test: StepTest | None = None
    members: tuple[Pair, ...] = field(default=(), repr=False, compare=False)


def effects(rows: Sequence[Row], evidence: Evidence | None = None) -> list[Effect]:
    """Return what each step along each axis does to the int8 networks, from paired cells only."""
    steps = _steps(rows)
    evidence = (evidence or Evidence()).of(rows)
    tests: list[dict[str, StepTest]] = [{} for _ in steps]
    for measure in evidence.measures.accuracy:
        for place, test in _tests([pairs for *_, pairs in steps], measure, evidence).items():
            tests[place][measure.key] = test
    headline = evidence.measures.headline
    return [_effect(*step, tested, headline) for step, tested in zip(steps, tests, strict=True)]


def _steps(rows: Sequence[Row]) -> list[tuple[str, Any, Any, list[Pair]]]:
    """Each axis, two of its values, and the pairs of cells that differ in nothing else."""
    cells, axes = [row for row in rows if is_int8(row)], axes_of(rows)
    places: dict[tuple[str, ...], list[Row]] = {}
    for row in cells:
        places.setdefault(place_of(row, axes), []).append(row)
    found = []
    for axis in axes:
        values = list(dict.fromkeys(row.get(axis) for row in cells))
        for start, to in compared_values(values):
            pairs = []
            for row in (row for row in cells if row.get(axis) == start):
                partners = places.get(place_of({**row, axis: to}, axes), [])
                # Cells that differ in something the rows do not show are no pair of anything.
                if len(partners) == len(places[place_of(row, axes)]) == 1:
                    pairs.append((row, partners[0]))
            if pairs:
                found.append((axis, start, to, pairs))
    return found


def compared_values(values: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Return which values of an axis are compared: all pairs of up to ``MOST_VALUES``.

    Of more the first one with others evenly spread over the rest: all pairs of a thousand values are half a million.
    """
    if len(values) <= MOST_VALUES:
        return list(itertools.combinations(values, 2))
    places = np.linspace(1, len(values) - 1, MOST_VALUES).round().astype(int)
    return [(values[0], values[place]) for place in places]


def _effect(
    axis: str, start: Any, to: Any, pairs: list[Pair], tests: Mapping[str, StepTest], headline: Measure
) -> Effect:
    def differences(column: str) -> tuple[float, ...]:
        alike = [(a, b) for a, b in pairs if not is_latency(column) or processor_of(a) == processor_of(b)]
        figures = [(value(a, column), value(b, column)) for a, b in alike]
        return tuple(b - a for a, b in figures if a is not None and b is not None)

    same = sum(bool(a.get("graph_hash")) and a.get("graph_hash") == b.get("graph_hash") for a, b in pairs)
    figures = differences(headline.column), differences("sqnr_db")
    costs = differences("size_mb"), differences("latency_ratio")
    test = tests.get(headline.key)
    return Effect(axis, start, to, *figures, len(pairs), same, *costs, tests, test, tuple(pairs))


def _tests(steps: Sequence[Sequence[Pair]], measure: Measure, evidence: Evidence) -> dict[int, StepTest]:
    """The tests of all steps in one measure, one family, by the number of the step."""
    paired = {row["cell"] for pairs in steps for pair in pairs for row in pair}
    known = [row for row in evidence.rows if value(row, measure.column) is not None]
    names = [row["cell"] for row in known if row["cell"] in paired]
    if not names:
        return {}
    subjects = evidence.subjects(names, measure)
    places = {name: place for place, name in enumerate(names)}
    found: dict[int, tuple[Step, np.ndarray]] = {}
    for number, pairs in enumerate(steps):
        there = [(places[a["cell"]], places[b["cell"]]) for a, b in pairs if {a["cell"], b["cell"]} <= places.keys()]
        if there:
            found[number] = step_of(subjects, np.array(there)), np.array(there)
    made = [step for step, _ in found.values()]
    estimates, by_scene, by_redraw, degrees = (
        np.array([getattr(step, name) for step in made])
        for name in ("estimate", "by_scene", "by_redraw", "degrees_of_freedom")
    )
    variances = by_scene + by_redraw
    starts = [float(subjects.figures[there[:, 0]].mean()) for _, there in found.values()]
    margins = np.array([subjects.margin.of(figure) for figure in starts])
    halves = half_widths(variances, degrees, holm_levels(p_values(estimates, variances, degrees)), subjects.one_image)
    halves = np.where([step.same for step in made], 0.0, halves)
    known_draws = np.array([step.known for step in made])
    words = worded(subjects.sign * estimates, halves, margins, known_draws)
    tests = {}
    for place, (number, (step, members)) in enumerate(found.items()):
        tested = step.degrees_of_freedom > 0 or step.same
        estimate, half, margin, word = step.estimate, float(halves[place]), float(margins[place]), str(words[place])
        wanted = ""
        if tested and word == UNDECIDED:
            quantile = quantile_of(half, float(variances[place]), subjects.one_image)
            counts = subjects.images, int(max(subjects.seeds[members].max(), 1))
            parts = step.by_scene, step.by_redraw, quantile, counts, step.known, subjects.one_image
            wanted = str(needed(estimate, margin, *parts))
        tests[number] = StepTest(
            measure,
            estimate,
            estimate - half if tested else None,
            estimate + half if tested else None,
            word,
            (RECIPES if step.known else NETWORKS) if tested else ESTIMATES,
            margin,
            wanted,
            tested and pairs_disagree(subjects, members, margin),
        )
    return tests


def verdict(effect: Effect) -> str:
    """Say in words what the headline's differences of an effect show, and what they do not."""
    if effect.identical == effect.pairs:
        return "nothing: the int8 networks are the same"
    test = effect.test
    if test is None:
        return "no figures"
    if test.scope == ESTIMATES:
        return "undecided: no figures by image"
    if test.depends:
        return "depends on the other axes: the pairs disagree"
    if test.verdict == EQUIVALENT:
        return f"equivalent (within {test.margin:g})"
    if test.verdict in (BETTER, WORSE):
        return test.verdict if test.scope == RECIPES else f"{test.verdict}, of these networks"
    return f"undecided; {test.needed} would decide" if test.needed else "undecided"
