"""Intervals cover what they claim with few scenes and many, of equal size or not: shown by simulation."""

import numpy as np
import pytest

from grid.results.comparisons.evidence import Evidence
from grid.results.comparisons.image_tables import ImageTables
from grid.results.comparisons.resampling import LEAST_NOISE, NOISE, Sample, sample_of, variances
from grid.results.comparisons.verdicts import half_widths, needed, quantile_of
from grid.storage.per_image import ImageFigures
from tests.grid.results.comparisons.made_up_images import coarse, scenes_of

TIMES = 2000


def scene_sizes(scenes: int, equal: bool) -> np.ndarray:
    return scenes_of(scenes) if equal else np.repeat(np.arange(scenes), 1 + np.arange(scenes) % 7)


@pytest.mark.parametrize("scenes", [16, 48, 128])
@pytest.mark.parametrize("equal", [True, False])
@pytest.mark.parametrize("skewed", [False, True])
def test_95_percent_intervals_of_a_mean_over_scenes_cover_it(scenes, equal, skewed):
    noise, scene = np.random.default_rng(scenes), scene_sizes(scenes, equal)
    effects = noise.gamma(4.0, 0.5, (TIMES, scenes)) - 2.0 if skewed else noise.normal(0, 1, (TIMES, scenes))
    figures = effects[:, scene] + noise.normal(0, 0.5, (TIMES, len(scene)))
    sample = Sample({str(time): time for time in range(TIMES)}, scene, {"ssim": figures})
    found, degrees = sample.resampled("ssim"), np.full(TIMES, sample.degrees_of_freedom)
    halves = half_widths(found.deviations.var(axis=1, ddof=1), degrees, 0.05)
    covered = float((np.abs(found.means) <= halves).mean())
    assert (0.92 if skewed else 0.935) <= covered <= 0.98


def test_a_few_scenes_that_hold_most_images_have_few_degrees_of_freedom():
    assert Sample(scene=scenes_of(16)).degrees_of_freedom == pytest.approx(15)
    one_big = Sample(scene=np.concatenate([np.zeros(100, int), np.arange(1, 16)]))
    assert one_big.degrees_of_freedom == 1
    assert Sample(scene=scenes_of(1)).degrees_of_freedom == 0


def test_a_difference_moves_less_than_what_two_cells_have_in_common():
    noise, scene = np.random.default_rng(0), scenes_of(30)
    common = noise.normal(0, 0.1, 30)[scene]
    figures = np.stack([common, common + 0.01, common + noise.normal(0, 0.001, len(scene))])
    found = Sample({"a": 0, "b": 1, "c": 2}, scene, {"ssim": figures}).resampled("ssim")
    apart = variances(found.deviations, np.arange(3), np.arange(3))
    alone = found.deviations.var(axis=1, ddof=1)
    assert apart[0, 1] == pytest.approx(0, abs=1e-15)
    direct = (found.deviations[0] - found.deviations[2]).var(ddof=1)
    assert apart[0, 2] == pytest.approx(direct, rel=1e-6)
    assert direct < 0.001 * alone[0]


def test_a_mean_over_scenes_of_unequal_size_is_the_mean_over_images():
    figures, scene = np.array([[1.0, 2.0, 3.0, 7.0]]), np.array([0, 0, 0, 1])
    assert Sample({"a": 0}, scene, {"ssim": figures}).resampled("ssim").means == pytest.approx([3.25])


def test_noise_is_compared_in_decibels_of_its_mean():
    scene = scenes_of(20)
    figures = np.stack([np.full(len(scene), 1e-4), np.full(len(scene), 1e-3), np.zeros(len(scene))])
    found = Sample({"a": 0, "b": 1, "c": 2}, scene, {NOISE: figures}).resampled(NOISE)
    assert found.means == pytest.approx([40.0, 30.0, -10 * np.log10(LEAST_NOISE)])


def test_cells_with_other_images_or_without_a_measure_have_no_figures():
    scene = scenes_of(5)
    tables = {
        "a": ImageFigures(scene + 140, {"ssim": np.ones(20)}),
        "b": ImageFigures(scene + 140, {"ssim": np.ones(20), "noise_mse": np.ones(20)}),
        "other": ImageFigures(scene, {"ssim": np.ones(20)}),
    }
    sample = sample_of(tables)
    assert list(sample.cells) == ["a", "b"]
    assert np.isnan(sample.resampled("noise_mse").means).tolist() == [True, False]
    assert np.isnan(sample.resampled("delta1").means).all()
    assert sample.scenes == 5


def test_an_image_without_a_figure_in_one_cell_counts_in_none():
    figures = np.array([[1.0, 2.0, np.nan, 4.0], [1.0, 2.0, np.nan, 5.0]])
    found = Sample({"a": 0, "b": 1}, np.arange(4), {"rmse_m": figures}).resampled("rmse_m")
    assert found.means == pytest.approx([7 / 3, 8 / 3])


# ---- figures that count: right or wrong


def half_width_of_difference(figures: np.ndarray, scene: np.ndarray, level: float = 0.05) -> np.ndarray:
    """Of the second half of the cells against the first, [C / 2]."""
    sample, pairs = (
        Sample({str(cell): cell for cell in range(len(figures))}, scene, {"top1": figures}),
        len(figures) // 2,
    )
    found = sample.resampled("top1")
    spread = (found.deviations[pairs:] - found.deviations[:pairs]).var(axis=1, ddof=1)
    return half_widths(spread, np.full(pairs, sample.degrees_of_freedom), level, found.one_image)


@pytest.mark.parametrize("by_scene", [False, True])
@pytest.mark.parametrize("level", [0.05, 0.05 / 12])
@pytest.mark.parametrize("lost", [0.005, 0.0165, 0.03])
def test_intervals_of_shares_that_rarely_differ_cover_the_difference(lost, level, by_scene):
    """A network that loses few right answers often loses none on these images; that is no proof that it loses none."""
    noise, scene, pairs = np.random.default_rng(1), scenes_of(32), 400
    chance = noise.random((pairs, 32))[:, scene] if by_scene else noise.random((pairs, len(scene)))
    right = (noise.random((pairs, 32))[:, scene] if by_scene else noise.random((pairs, len(scene)))) < 0.9
    other = right & (chance >= lost / 0.9)
    halves = half_width_of_difference(np.concatenate([right, other]).astype(float), scene, level)
    differences = other.mean(axis=1) - right.mean(axis=1)
    assert (differences == 0).any(), "without a margin for what was not seen these have no width"
    assert (np.abs(differences + lost) <= halves).mean() >= 1 - level - 0.015


def test_as_many_equal_answers_as_rule_out_a_loss_are_equivalence_and_fewer_are_not():
    """Without any difference seen, about 770 images rule out half a percentage point; frames of one film do not."""
    for scenes, images, decided in ((32, 4, False), (150, 4, False), (250, 4, True)):
        right = (np.random.default_rng(2).random(scenes * images) < 0.8).astype(float)
        (half,) = half_width_of_difference(np.stack([right, right]), scenes_of(scenes, images))
        assert (half < 0.005) == decided
    film = np.repeat((np.random.default_rng(2).random(25) < 0.8).astype(float), 40)
    (half,) = half_width_of_difference(np.stack([film, film]), scenes_of(25, 40))
    assert half > 0.05


def test_how_many_images_would_decide_is_what_decides():
    """Networks that agree on 128 images are told how many more it takes, and with as many they are equivalent."""
    right = (np.arange(128) % 5 > 0).astype(float)
    found = Sample({"a": 0, "b": 1}, scenes_of(32), {"top1": np.stack([right, right])}).resampled("top1")
    (half,) = half_widths(np.zeros(1), np.full(1, 31.0), 0.05, found.one_image)
    quantile = quantile_of(half, 0.0, found.one_image)
    assert quantile == pytest.approx(2.04, abs=0.01)
    count = needed(0.0, 0.005, 0.0, 0.0, quantile, (128, 1), True, found.one_image).images
    assert quantile**2 * found.one_image * 128 / count == pytest.approx(0.005, rel=0.03)


def test_seeds_and_pairs_see_the_same_images_and_so_rule_out_no_more():
    evidence = coarse()
    three = [dict(row, cell=f"{row['cell']}-s{seed}") for row in evidence.rows for seed in range(3)]
    figures = evidence.tables.sample("test")
    cells = {row["cell"]: figures.cells[row["cell"].rpartition("-")[0]] for row in three}
    tables = ImageTables(samples={"test": Sample(cells, figures.scene, figures.figures)})
    measure = evidence.measures.headline
    alone = evidence.subjects(["close", "noisy"], measure).one_image
    assert alone > 0
    assert (
        Evidence(three, tables, evidence.margins, evidence.measures).subjects(["close", "noisy"], measure).one_image
        == alone
    )


def test_figures_that_are_measured_and_not_counted_get_nothing_added():
    figures = np.random.default_rng(3).random(128)
    (half,) = half_width_of_difference(np.stack([figures, figures]), scenes_of(32))
    assert half == pytest.approx(0.0, abs=1e-12)
