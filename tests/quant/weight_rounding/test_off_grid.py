"""A start for training that is not pinned to the centres of the grid."""

import copy

import pytest
import torch

from quant.calibrate import calibrate
from quant.prepare import quant_convs
from quant.qat.integers import changed, integer_weights
from quant.recipe import CalibrateSpec, RoundingSpec
from quant.tracing.trace import fuse_bn
from quant.weight_rounding.off_grid import lean_, load_off_grid, save_off_grid
from quant.weight_rounding.rounding import round_weights_optq

SPEC = CalibrateSpec(activation_range="minmax")


def in_steps(conv):
    """Where the weights are, in steps of their grid."""
    return conv.folded()[0].detach() / conv.weight_quantizer.scale.reshape(-1, 1, 1, 1)


@pytest.fixture(scope="module", params=[(True, "per_channel"), (False, "per_channel"), (False, "per_tensor")])
def rounded(request, all_kinds, images):
    fused, granularity = request.param
    network = fuse_bn(all_kinds) if fused else all_kinds
    network, _, off_grid = round_weights_optq(
        calibrate(network, granularity, SPEC, images), RoundingSpec(), images, seed=0
    )
    return network, off_grid


def test_it_says_where_the_best_weights_are(rounded):
    network, off_grid = rounded
    assert off_grid.keys() == quant_convs(network).keys()
    steps = torch.cat([one.flatten() for one in off_grid.values()]).abs()
    assert 0.15 < steps.median() < 0.35, "mostly inside of the cells, anywhere in them"
    for name, conv in quant_convs(network).items():
        assert off_grid[name].shape == conv.conv.weight.shape


def test_leaning_changes_no_integer_and_leaves_the_centres(rounded, tmp_path):
    network, off_grid = rounded
    leaning = copy.deepcopy(network)
    save_off_grid(tmp_path, off_grid)
    lean_(leaning, load_off_grid(tmp_path))
    assert changed(integer_weights(network), integer_weights(leaning)) == 0.0
    for name, conv in quant_convs(leaning).items():
        moved = in_steps(conv) - in_steps(quant_convs(network)[name])
        assert (moved * off_grid[name] >= -1e-3).all(), f"{name} goes the other way"
        assert moved.abs().max() > 0.2, f"{name} stayed at the centres"
        assert moved.abs().max() < 0.45, "noise does not push them out at once"


def test_a_convolution_that_is_kept_in_float_does_not_lean(rounded):
    network, off_grid = copy.deepcopy(rounded[0]), rounded[1]
    convs = quant_convs(network)
    name = next(iter(convs))
    convs[name].weight_quantizer.set_mode("off")
    before = {key: conv.conv.weight.detach().clone() for key, conv in convs.items()}
    lean_(network, {key: steps for key, steps in off_grid.items() if key != name})
    assert [key for key in convs if torch.equal(convs[key].conv.weight, before[key])] == [name]
