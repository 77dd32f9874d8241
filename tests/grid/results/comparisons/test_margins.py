"""Margins are read over their defaults, and a wrong part is named."""

import pytest

from grid.results.comparisons.margins import Margin, parse_margins
from model.errors import InputError
from tests.grid.measures import DEFAULTS, METRICS


def test_every_metric_of_a_target_has_a_margin():
    assert DEFAULTS.keys() == METRICS.keys()
    assert all(measure.key == name for name, measure in METRICS.items())


def test_margins_are_numbers_or_percentages_over_the_defaults():
    found = parse_margins(["ssim=0.002, mse=5%", "latency = 0"], DEFAULTS)
    assert (found["ssim"], found["mse"], found["latency"]) == (Margin(0.002), Margin(0.05, True), Margin(0.0))
    assert found["sqnr_db"] == DEFAULTS["sqnr_db"]
    assert (found["ssim"].of(0.9), found["mse"].of(-0.2)) == (0.002, pytest.approx(0.01))
    assert parse_margins([], DEFAULTS) == DEFAULTS


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sim=0.1", ("'sim'", "ssim")),
        ("ssim", ("'ssim'", "METRIC=NUMBER")),
        ("ssim=good", ("'ssim=good'", "finite number")),
        ("ssim=-0.1", ("from 0 on",)),
        ("ssim=inf", ("from 0 on",)),
        ("ssim=1e-3 %%", ("METRIC=NUMBER%",)),
    ],
)
def test_a_bad_margin_is_told_with_the_part_that_is_wrong(text, words):
    with pytest.raises(InputError) as caught:
        parse_margins([text], DEFAULTS)
    assert str(caught.value).startswith("--margin")
    assert all(word in str(caught.value) for word in words)
