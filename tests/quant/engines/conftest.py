"""A network of all kinds of operators, calibrated."""

import copy

import pytest

from quant.calibrate import calibrate
from quant.recipe import CalibrateSpec

MINMAX = CalibrateSpec(activation_range="minmax")


@pytest.fixture(scope="module")
def kinds(all_kinds, images):
    return calibrate(all_kinds, "per_channel", MINMAX, images)


@pytest.fixture
def fresh_kinds(kinds):
    """A copy that a test may change."""
    return copy.deepcopy(kinds)
