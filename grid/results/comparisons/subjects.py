"""Cells or recipes in one measure, and the differences between them with their two sources of error."""

from dataclasses import dataclass

import numpy as np

from grid.results.comparisons.margins import Margin
from grid.results.comparisons.resampling import variances
from grid.results.ranking import Measure


@dataclass(frozen=True)
class Subjects:
    """What is compared in one measure: cells, or recipes of several seeds, each the mean of its networks.

    ``figures`` [n] are those of the rows, ``deviations`` [n, B] how they move with other scenes (NaN: no figures by
    image). ``redraws`` [n] is the variance that drawing the networks again adds (NaN: unknown), ``kinds`` [n] tells
    which of them come from one estimate, and ``degrees`` [n] are its degrees of freedom (0: known without any).
    ``roots`` [n] and ``networks`` [n] number the float network and the network itself, ``drawn`` [n] what was drawn:
    cells that differ in the engine alone are one draw. ``root_variance`` is that of a float network trained again.
    ``one_image`` is what ``half_widths`` takes of figures that are counted.
    """

    names: tuple[str, ...]
    measure: Measure
    figures: np.ndarray
    deviations: np.ndarray
    redraws: np.ndarray
    kinds: np.ndarray
    degrees: np.ndarray
    roots: np.ndarray
    networks: np.ndarray
    drawn: np.ndarray
    seeds: np.ndarray
    root_variance: float
    root_degrees: float
    scene_degrees: float
    images: int
    scenes: int
    margin: Margin
    one_image: float = 0.0

    @property
    def sign(self) -> float:
        """1 where higher is better, else -1."""
        return 1.0 if self.measure.higher_is_better else -1.0

    @property
    def tested(self) -> np.ndarray:
        """Which have figures by image, of two scenes or more, [n]."""
        return np.asarray(~np.isnan(self.deviations[:, 0]) & (self.scene_degrees > 0))


@dataclass(frozen=True)
class Differences:
    """Differences ``others`` to ``cells`` [M, N]: estimates, both parts of their variance, and degrees of freedom.

    ``known`` [M, N]: whether redraws are known, so that recipes are compared and not these networks alone.
    """

    estimates: np.ndarray
    by_scene: np.ndarray
    by_redraw: np.ndarray
    degrees: np.ndarray
    known: np.ndarray
    same: np.ndarray

    @property
    def variances(self) -> np.ndarray:
        """Both parts together."""
        return np.asarray(self.by_scene + self.by_redraw)


@dataclass(frozen=True)
class RedrawParts:
    """What redraws add to differences: in all, of the one and of the other side, and whether it is known."""

    by_redraw: np.ndarray
    left: np.ndarray
    right: np.ndarray
    of_float: np.ndarray
    known: np.ndarray
    same: np.ndarray


def difference_parts(subjects: Subjects, cells: np.ndarray, others: np.ndarray) -> RedrawParts:
    """What redraws add to ``cells`` less ``others``, which are places in ``subjects`` of shapes that broadcast.

    Nothing where both are one network, or one draw that two engines run; a float network that is trained again where
    they come from two of them.
    """
    one = subjects
    same = one.networks[cells] == one.networks[others]
    shared = same | (one.drawn[cells] == one.drawn[others])
    left, right = (np.where(shared, 0.0, one.redraws[side] + np.zeros(shared.shape)) for side in (cells, others))
    share = 1.0 / one.seeds[cells] + 1.0 / one.seeds[others]
    of_float = np.where(one.roots[cells] != one.roots[others], one.root_variance * share, 0.0)
    by_redraw = left + right + of_float
    known = ~np.isnan(by_redraw)
    parts = (left, right, of_float, by_redraw)
    left, right, of_float, by_redraw = (np.where(known & ~same, part, 0.0) for part in parts)
    return RedrawParts(by_redraw, left, right, of_float, known | same, same)


def differences(subjects: Subjects, cells: np.ndarray, others: np.ndarray) -> Differences:
    """Each of ``cells`` [M] less each of ``others`` [N], paired over images.

    Where redraws are known they add their variance; what of a redraw differs from scene to scene is then in both
    parts, which makes the interval rather too wide than too narrow. Degrees of freedom by Satterthwaite (1946).
    """
    one, rows, columns = subjects, cells[:, None], others[None]
    redraws = difference_parts(one, rows, columns)
    by_scene = np.where(redraws.same, 0.0, variances(one.deviations, cells, others))
    kin = one.kinds[rows] == one.kinds[columns]
    left_df, right_df = one.degrees[rows], one.degrees[columns]
    spent = _spent(by_scene, one.scene_degrees) + _spent(redraws.of_float, one.root_degrees)
    apart = _spent(redraws.left, left_df) + _spent(redraws.right, right_df)
    spent += np.where(kin, _spent(redraws.left + redraws.right, left_df), apart)
    with np.errstate(divide="ignore", invalid="ignore"):
        degrees = np.where(spent > 0, (by_scene + redraws.by_redraw) ** 2 / spent, one.scene_degrees)
    tested = one.tested[rows] & one.tested[columns]
    estimates = np.where(redraws.same, 0.0, one.figures[rows] - one.figures[columns])
    degrees = np.where(tested, degrees, 0.0)
    return Differences(estimates, by_scene, redraws.by_redraw, degrees, redraws.known, redraws.same)


def _spent(variance: np.ndarray, degrees: np.ndarray | float) -> np.ndarray:
    """What a part of a variance costs in degrees of freedom; nothing where it is known without error."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where((variance > 0) & (np.asarray(degrees) > 0), variance**2 / degrees, 0.0))
