import numpy as np
import pytest

from model.data.rooms.render import SEED, VIEWS_PER_SCENE, render_frame
from model.data.rooms.sensor_noise import noise_rng, noisy


def psnr_db(image, other):
    return 10 * np.log10(255**2 / np.mean((image.astype(float) - other) ** 2))


@pytest.fixture(scope="module")
def images():
    return [render_frame("val", number * VIEWS_PER_SCENE, 64).image for number in range(30)]


def test_noise_leaves_between_22_and_26_db(images):
    ratios = [psnr_db(image, noisy(image, noise_rng("val", index))) for index, image in enumerate(images)]
    assert min(ratios) > 21.5
    assert max(ratios) < 26.5
    assert 23 < np.mean(ratios) < 25.5
    assert max(ratios) - min(ratios) > 1, "its strength differs from picture to picture"


def test_noise_keeps_shape_and_type_and_leaves_its_argument_alone(images):
    before = images[0].tobytes()
    result = noisy(images[0], noise_rng("val", 0))
    assert result.shape == images[0].shape
    assert result.dtype == np.uint8
    assert images[0].tobytes() == before


def test_noise_is_the_same_for_the_same_picture_and_differs_between_pictures_splits_and_seeds(images):
    keys = [("val", 0, SEED), ("val", 1, SEED), ("test", 0, SEED), ("val", 0, 99)]
    results = [noisy(images[0], noise_rng(*key)).tobytes() for key in keys]
    assert len(set(results)) == len(keys)
    assert noisy(images[0], noise_rng("val", 0)).tobytes() == results[0]


def test_noise_draws_other_numbers_than_the_rooms():
    draws = {noise_rng("train", 3).random(), np.random.default_rng([SEED, 0, 3]).random()}
    draws |= {np.random.default_rng([SEED, 0, 3, view + 1]).random() for view in range(VIEWS_PER_SCENE)}
    assert len(draws) == 2 + VIEWS_PER_SCENE


def test_noise_grows_with_the_light_as_shot_noise_does():
    """Variance against signal in linear light is a line above zero, and the mean stays."""
    signals, variances = [], []
    for value in (60, 110, 150, 180):
        noise = noisy(np.full((3, 96, 96), value, np.uint8), noise_rng("val", 0))
        light = (noise / 255) ** 2.2
        signals.append((value / 255) ** 2.2)
        variances.append(light.var())
        assert light.mean() == pytest.approx(signals[-1], rel=0.03)
    slope = np.diff(variances) / np.diff(signals)
    assert slope.max() < 1.3 * slope.min()
    assert slope.min() > 0.005
