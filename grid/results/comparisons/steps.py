"""A step along an axis: the mean of many pairs' differences, and whether the pairs agree on it."""

from dataclasses import dataclass

import numpy as np

from grid.results.comparisons.subjects import Subjects, difference_parts
from grid.results.comparisons.verdicts import EQUIVALENT, UNDECIDED, half_widths, holm_levels, p_values, worded


@dataclass(frozen=True)
class Step:
    """The mean over pairs of a difference, with both parts of its variance; see ``Differences``."""

    estimate: float
    by_scene: float
    by_redraw: float
    degrees_of_freedom: float
    known: bool
    same: bool


def step_of(subjects: Subjects, pairs: np.ndarray) -> Step:
    """The mean difference of ``pairs`` [P, 2] of places in ``subjects``, the second less the first.

    The pairs share images, and often the float network: differences by image are averaged over the pairs first, and
    only then resampled by scene. Networks that are one draw, such as those of several engines, move together.
    """
    start, to = pairs.T
    same = subjects.networks[start] == subjects.networks[to]
    moved = (subjects.deviations[to] - subjects.deviations[start])[~same].sum(axis=0) / len(pairs)
    by_scene = float(moved @ moved) / max(len(moved) - 1, 1)
    estimate = float(np.where(same, 0.0, subjects.figures[to] - subjects.figures[start]).mean())
    shares = _shares(subjects.drawn, start, to) ** 2 * subjects.redraws
    root_shares = _shares(subjects.roots, start, to) ** 2 * subjects.root_variance / subjects.seeds
    of_draws = shares[shares != 0.0]  # keeps NaN, which is unknown
    of_roots = float(root_shares[root_shares != 0.0].sum())
    by_redraw = float(of_draws.sum()) + of_roots
    known = not np.isnan(by_redraw)
    spent = by_scene**2 / subjects.scene_degrees if subjects.scene_degrees > 0 else 0.0
    if known:
        for kind in np.unique(subjects.kinds[shares != 0.0]):
            own = (subjects.kinds == kind) & (shares != 0.0)
            spent += float(shares[own].sum()) ** 2 / max(float(subjects.degrees[own].max()), 1.0)
        spent += of_roots**2 / max(subjects.root_degrees, 1.0)
    by_redraw = by_redraw if known else 0.0
    degrees = (by_scene + by_redraw) ** 2 / spent if spent > 0 else subjects.scene_degrees
    tested = bool((subjects.tested[start] & subjects.tested[to]).all())
    return Step(estimate, by_scene, by_redraw, degrees if tested else 0.0, known, bool(same.all()))


def _shares(numbers: np.ndarray, start: np.ndarray, to: np.ndarray) -> np.ndarray:
    """How much of the mean difference hangs on each draw, [n], told at the first cell of it; 0 at the others."""
    totals = np.bincount(numbers[to], minlength=numbers.max() + 1) - np.bincount(
        numbers[start], minlength=numbers.max() + 1
    )
    found = np.zeros(len(numbers))
    used = np.unique(np.concatenate([start, to]))
    firsts = used[np.unique(numbers[used], return_index=True)[1]]
    found[firsts] = totals[numbers[firsts]] / len(start)
    return found


def pairs_disagree(subjects: Subjects, pairs: np.ndarray, margin: float) -> bool:
    """Whether a pair's difference differs from the mean of all of them by a test, and by more than the margin.

    The pairs are one family.
    """
    start, to = pairs.T
    count = len(pairs)
    if count < 2:
        return False
    parts = difference_parts(subjects, to, start)
    moved = np.where(parts.same[:, None], 0.0, subjects.deviations[to] - subjects.deviations[start])
    estimates = np.where(parts.same, 0.0, subjects.figures[to] - subjects.figures[start])
    moved, estimates = moved - moved.mean(axis=0), estimates - estimates.mean()
    by_scene = np.einsum("pb,pb->p", moved, moved) / max(moved.shape[1] - 1, 1)
    by_redraw = np.where(parts.known, parts.by_redraw, 0.0)
    by_redraw = by_redraw * (1 - 2 / count) + by_redraw.mean() / count
    variances = by_scene + by_redraw
    least = np.array([min(_positive(subjects.degrees[pair])) for pair in pairs])
    with np.errstate(divide="ignore", invalid="ignore"):
        spent = by_scene**2 / subjects.scene_degrees + np.where(by_redraw > 0, by_redraw**2 / least, 0.0)
        degrees = np.where(spent > 0, variances**2 / spent, subjects.scene_degrees)
    levels = holm_levels(p_values(estimates, variances, degrees))
    words = worded(estimates, half_widths(variances, degrees, levels, subjects.one_image), margin, parts.known)
    return bool(np.isin(words, (EQUIVALENT, UNDECIDED), invert=True).any())


def _positive(degrees: np.ndarray) -> list[float]:
    """Those that are known, else infinity."""
    return [float(one) for one in degrees if one > 0] or [float("inf")]
