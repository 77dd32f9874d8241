"""Words follow from intervals, intervals from Holm's procedure, and what is needed would decide."""

import numpy as np
import pytest

from grid.results.comparisons.verdicts import Needed, half_widths, holm_levels, needed, p_values, worded


def holm(p: np.ndarray, level: float) -> np.ndarray:
    """Holm's procedure as it is written: sorted, each against level / (what is left), until one fails."""
    rejected = np.zeros(len(p), dtype=bool)
    for rank, place in enumerate(np.argsort(p, kind="stable")):
        if p[place] > level / (len(p) - rank):
            break
        rejected[place] = True
    return rejected


@pytest.mark.parametrize("seed", range(20))
def test_an_interval_excludes_0_where_holm_rejects_and_only_there(seed):
    noise = np.random.default_rng(seed)
    estimates = noise.normal(0, 1, 12) * noise.choice([1, 4], 12)
    degrees, variances = noise.integers(2, 40, 12).astype(float), noise.uniform(0.3, 1.5, 12)
    p = p_values(estimates, variances, degrees)
    halves = half_widths(variances, degrees, holm_levels(p))
    assert (np.abs(estimates) > halves).tolist() == holm(p, 0.05).tolist()


@pytest.mark.parametrize(
    ("gain", "half", "margin", "word"),
    [
        (0.003, 0.001, 0.001, "better"),
        (-0.003, 0.001, 0.001, "worse"),
        (0.0005, 0.0002, 0.001, "equivalent"),
        (0.0005, 0.0006, 0.001, "undecided"),
        (0.0008, 0.0005, 0.001, "better"),
        (0.0, 0.0, 0.0, "equivalent"),
        (0.01, np.inf, 0.001, "undecided"),
    ],
)
def test_a_word_says_where_the_interval_lies(gain, half, margin, word):
    assert worded(np.array([gain]), np.array([half]), margin).tolist() == [word]


@pytest.mark.parametrize(
    ("gain", "word"), [(0.0008, "undecided"), (0.0014, "undecided"), (0.0016, "better"), (-0.0016, "worse")]
)
def test_where_redraws_are_unknown_a_difference_lies_beyond_the_margin_as_a_whole(gain, word):
    known = np.array([True, False])
    told = worded(np.array([gain, gain]), np.array([0.0005, 0.0005]), 0.001, known).tolist()
    assert told == ["better" if gain > 0 else "worse", word]


def test_without_degrees_of_freedom_nothing_is_significant():
    p = p_values(np.array([1.0, 0.0, 1.0]), np.array([1e-9, 0.0, 0.0]), np.array([0.0, 5.0, 5.0]))
    assert p.tolist() == [1.0, 1.0, 0.0]
    assert half_widths(np.array([1e-9]), np.array([0.0]), 0.05).tolist() == [np.inf]


@pytest.mark.parametrize(("gain", "margin"), [(0.0003, 0.001), (0.002, 0.001), (0.0008, 0.001)])
def test_so_many_images_would_decide_if_scenes_are_what_moves_it(gain, margin):
    found = needed(gain, margin, scenes=4e-6, redraws=1e-9, quantile=2.0, counts=(128, 3))
    assert found.seeds is None
    half = 2.0 * np.sqrt(4e-6 * 128 / (found.images or 1) + 1e-9)
    assert worded(np.array([gain]), np.array([half]), margin) != "undecided"
    fewer = 2.0 * np.sqrt(4e-6 * 128 / (0.85 * (found.images or 1)) + 1e-9)
    assert worded(np.array([gain]), np.array([fewer]), margin) == "undecided"


def test_so_many_seeds_would_decide_if_redraws_are_what_moves_it():
    found = needed(0.001, 0.0, scenes=1e-8, redraws=1e-6, quantile=2.0, counts=(128, 2))
    assert found == Needed(seeds=9)
    assert str(found) == "about 9 seeds"
    assert str(needed(0.001, 0.0, 1e-6, 1e-6, 2.0, (128, 2))) == "about 1,100 images and 16 seeds"
    assert str(needed(0.0, 0.0, 1e-6, 0.0, 2.0, (128, 1))) == "", "nothing decides about nothing"
