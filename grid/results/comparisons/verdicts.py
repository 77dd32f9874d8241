"""From an estimate and its error to a word: better, worse, equivalent or undecided, corrected for their number."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

LEVEL = 0.05
"""The chance of one false word in a family of comparisons."""
BETTER, WORSE, EQUIVALENT, UNDECIDED = "better", "worse", "equivalent", "undecided"
_MOST = 1_000_000
SEEDS = 3
"""With as many of a recipe it is known how far a redraw moves it."""


@dataclass(frozen=True)
class Needed:
    """About what would decide: so many images of as many scenes each, or seeds; both where neither is enough alone."""

    images: int | None = None
    seeds: int | None = None

    def __str__(self) -> str:
        parts = [f"{count:,} {what}" for count, what in ((self.images, "images"), (self.seeds, "seeds")) if count]
        return f"about {' and '.join(parts)}" if parts else ""


def holm_levels(p_values: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """The level of each comparison of a family, [M], such that its own interval says what Holm's procedure says.

    Sorted by p-value the k-th (from 0) is tested at level / (M - k), until one is not significant; the rest share the
    level of that one (Holm 1979).
    """
    count = len(p_values)
    order = np.argsort(p_values, kind="stable")
    levels = level / (count - np.arange(count))
    kept = np.flatnonzero(p_values[order] > levels)
    if len(kept):
        levels[kept[0] :] = levels[kept[0]]
    found = np.empty(count)
    found[order] = levels
    return found


def p_values(estimates: np.ndarray, variances: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """Two-sided p-values by Student's t; 1 where there are no degrees of freedom, 0 for a difference without error."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(estimates == 0.0, 0.0, np.abs(estimates) / np.sqrt(variances))
        found = 2.0 * stdtr(degrees, -t)
    return np.where(degrees > 0, np.where(np.isinf(t), 0.0, found), 1.0)


def half_widths(
    variances: np.ndarray, degrees: np.ndarray, levels: np.ndarray | float, one_image: float = 0.0
) -> np.ndarray:
    """Half the width of each interval; infinite where there are no degrees of freedom.

    Networks whose figures are counted may agree on every image, and yet differ on the next one. ``one_image`` is what
    that would change; z^2 of it is what the score interval of a share has where no case was seen (Tango 1998).
    """
    levels = np.broadcast_to(levels, degrees.shape)
    if degrees.size and (levels == levels.flat[0]).all():  # of few different values each is looked up once
        known, place = np.unique(degrees, return_inverse=True)
        quantiles = _quantiles(known, np.full(known.shape, levels.flat[0]))[place].reshape(degrees.shape)
    else:
        quantiles = _quantiles(degrees, levels)
    with np.errstate(invalid="ignore"):
        halves = np.hypot(quantiles * np.sqrt(variances), quantiles**2 * one_image)
        return np.asarray(np.where(np.isinf(quantiles), np.inf, halves))


def _quantiles(degrees: np.ndarray, levels: np.ndarray) -> np.ndarray:
    return np.asarray(np.where(degrees > 0, stdtrit(np.maximum(degrees, 1e-9), 1.0 - levels / 2.0), np.inf))


def worded(
    gains: np.ndarray, halves: np.ndarray, margins: np.ndarray | float, known: np.ndarray | bool = True
) -> np.ndarray:
    """The word for each gain (positive is better) within its half width: an array of strings.

    Equivalent: the interval lies within the margin, even where it excludes 0. Better, worse: it excludes 0. Where it is
    not ``known`` how far a redraw moves the figures, the interval holds other images alone, and making one recipe's
    network again gives figures that differ: there all of it has to lie beyond the margin.
    """
    low, high, least = gains - halves, gains + halves, np.where(known, 0.0, margins)
    words = np.where(low > least, BETTER, np.where(high < -least, WORSE, UNDECIDED))
    inside = ((low > -margins) & (high < margins)) | ((gains == 0) & (halves == 0))
    return np.asarray(np.where(inside, EQUIVALENT, words))


def needed(
    gain: float,
    margin: float,
    scenes: float,
    redraws: float,
    quantile: float,
    counts: tuple[int, int],
    known: bool = True,
    one_image: float = 0.0,
) -> Needed:
    """What would make the interval exclude 0 or lie within the margin, if the estimate stayed as it is.

    ``scenes`` and ``redraws`` are the two parts of the variance, which fall with images and with seeds; ``counts`` are
    the images and the seeds that there are. What ``one_image`` more could change falls with images. Where redraws are
    not ``known`` and the interval excludes 0 all the same, it takes the seeds that make them known.
    """
    images, seeds = counts
    if not known and abs(gain) > quantile * math.sqrt(scenes + redraws):
        return Needed(seeds=SEEDS)
    goal = (max(abs(gain), margin - abs(gain)) / quantile) ** 2 if quantile < math.inf else 0.0
    if goal <= 0.0:
        return Needed()
    unseen = (quantile * one_image) ** 2
    more_images = _more_images(scenes, unseen, goal - redraws) if goal > redraws else math.inf
    more_seeds = redraws / (goal - scenes - unseen) if goal > scenes + unseen else math.inf
    if redraws > scenes and seeds * more_seeds < _MOST:
        return Needed(seeds=_about(seeds * more_seeds))
    if images * more_images < _MOST:
        return Needed(images=_about(images * more_images))
    both = (scenes + redraws) / goal
    return Needed(_about(images * both), _about(seeds * both)) if images * both < _MOST else Needed()


def _more_images(scenes: float, unseen: float, goal: float) -> float:
    """How many times as many images bring scenes / times + unseen / times^2 down to ``goal``."""
    if unseen == 0.0:
        return scenes / goal
    return 2.0 * unseen / (math.sqrt(scenes**2 + 4.0 * unseen * goal) - scenes)


def quantile_of(half: float, variance: float, one_image: float) -> float:
    """The quantile by which ``half_widths`` made half a width; infinite where nothing tells."""
    if one_image == 0.0:
        return half / math.sqrt(variance) if variance > 0.0 else math.inf
    squares = 4.0 * one_image**2 * half**2
    return math.sqrt((math.sqrt(variance**2 + squares) - variance) / (2.0 * one_image**2)) if half < math.inf else half


def _about(count: float) -> int:
    """Rounded up to two digits."""
    size: int = 10 ** max(math.floor(math.log10(max(count, 1.0))) - 1, 0)
    return math.ceil(count / size - 1e-9) * size
