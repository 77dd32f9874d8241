"""Which axis matters: the axes of a grid, ranked by what they do to the headline on test images at most."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from grid.results.comparisons.comparison import ESTIMATES
from grid.results.comparisons.verdicts import BETTER, EQUIVALENT, WORSE
from grid.results.effects import Effect, StepTest
from grid.results.ranking import Row, axes_of, value

MATTERS, DEPENDS, UNDECIDED, NOT_TESTED, NOTHING = "matters", "depends", "undecided", "not tested", "no difference"
WORDS = (MATTERS, DEPENDS, UNDECIDED, NOT_TESTED, NOTHING)
LEAST_SHARE = 0.5
"""Of the spread of a step's pairs, which another axis has to explain to be named as what the step depends on."""


@dataclass(frozen=True)
class AxisEffect:
    """The step of an axis that changes the headline most on test images, turned so that ``better`` has the better mean.

    ``gain`` is the mean of its pairs' differences, ``low`` and ``high`` its interval (None: not tested), ``word`` one
    of ``WORDS``: what all steps of the axis show. Where the pairs disagree, ``depends_on`` is the axis that explains
    most of it (empty: none does) and ``gains`` the mean difference at each of its values. ``effect`` is the step as
    ``effects`` has it, ``sign`` -1 where it goes from ``better`` to ``worse``.
    """

    axis: str
    worse: Any
    better: Any
    gain: float
    low: float | None
    high: float | None
    word: str
    depends_on: str
    gains: tuple[tuple[Any, float], ...]
    effect: Effect
    sign: float

    @property
    def reach(self) -> float:
        """By how much the headline changes at most: in the mean, or at one value of the axis that it depends on."""
        return max(self.gain, *(abs(gain) for _, gain in self.gains), 0.0)


def ranked_axes(rows: Sequence[Row], found: Sequence[Effect]) -> list[AxisEffect]:
    """Return the axes of ``rows`` whose steps ``found`` has figures of: first what makes a difference, by its size.

    Then what is undecided, and last what makes none.
    """
    by_axis: dict[str, list[Effect]] = {}
    for effect in found:
        if effect.headline and effect.test:
            by_axis.setdefault(effect.axis, []).append(effect)
    axes = [axis for axis in axes_of(rows) if axis in by_axis]
    ranked = [_axis_effect(by_axis[axis], [other for other in axes if other != axis]) for axis in axes]
    return sorted(ranked, key=lambda one: (max(WORDS.index(one.word), 1), -one.reach))


def _axis_effect(steps: Sequence[Effect], others: Sequence[str]) -> AxisEffect:
    """The step that reaches farthest, of those that decide something where there are any."""
    deciding = [step for step in steps if _decides(test_of(step))]
    word = "" if deciding else _undecided(steps)
    return max((_turned(step, word, others) for step in deciding or steps), key=lambda one: one.reach)


def test_of(step: Effect) -> StepTest:
    """The test of a step in the headline, which it has."""
    assert step.test is not None
    return step.test


def _decides(test: StepTest) -> bool:
    return test.scope != ESTIMATES and (test.depends or test.verdict in (BETTER, WORSE))


def _undecided(steps: Sequence[Effect]) -> str:
    """What steps show of which none decides anything."""
    same = [step.identical == step.pairs or test_of(step).verdict == EQUIVALENT for step in steps]
    if all(same):
        return NOTHING
    return NOT_TESTED if all(test_of(step).scope == ESTIMATES for step in steps) else UNDECIDED


def _turned(step: Effect, word: str, others: Sequence[str]) -> AxisEffect:
    """A step from its worse value to its better one; ``word`` is empty where it decides by itself."""
    test = test_of(step)
    sign = -1.0 if test.measure.sign * test.estimate < 0 else 1.0
    values = (step.start, step.to) if sign > 0 else (step.to, step.start)
    ends = sorted(sign * end for end in (test.low, test.high) if end is not None)
    low, high = ends if len(ends) == 2 else (None, None)
    word = word or (DEPENDS if test.depends else MATTERS)
    axis, gains = _dependence(step, sign, others) if word == DEPENDS else ("", ())
    return AxisEffect(step.axis, *values, sign * test.estimate, low, high, word, axis, gains, step, sign)


def _dependence(step: Effect, sign: float, others: Sequence[str]) -> tuple[str, tuple[tuple[Any, float], ...]]:
    """The axis that explains most of the spread of a step's differences, and their mean at each of its values."""
    column = test_of(step).measure.column
    figures = [(one, value(one, column), value(two, column)) for one, two in step.members]
    pairs = [(row, sign * (to - start)) for row, start, to in figures if start is not None and to is not None]
    differences = np.array([difference for _, difference in pairs])
    spread = float(((differences - differences.mean()) ** 2).sum())
    best: tuple[float, str, tuple[tuple[Any, float], ...]] = (0.0, "", ())
    for axis in others:
        groups: dict[Any, list[float]] = {}
        for row, difference in pairs:
            groups.setdefault(row.get(axis), []).append(difference)
        gains = tuple((name, float(np.mean(group))) for name, group in groups.items())
        between = sum(len(groups[name]) * (gain - float(differences.mean())) ** 2 for name, gain in gains)
        best = max(best, (between / spread if spread else 0.0, axis, gains), key=lambda one: one[0])
    share, axis, gains = best
    return (axis, gains) if share >= LEAST_SHARE else ("", ())
