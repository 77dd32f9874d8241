"""Bias correction takes out the mean error of convolutions, as the activation behind them sees it."""

import copy

import pytest
import torch
from torch import nn

from model.noise import sqnr_db
from quant.bias_correction import correct_bias
from quant.calibrate import calibrate
from quant.prepare import quant_convs, quantizers
from quant.recipe import BIAS_CORRECTIONS, BiasCorrectionSpec, CalibrateSpec
from quant.tracing.trace import fuse_bn
from tests.quant.networks import reference, settled

SPEC = CalibrateSpec(activation_range="minmax")


def coarse(network: nn.Module, images, levels: int = 7) -> nn.Module:
    """A calibrated network whose weights have few steps, so that their errors show."""
    prepared = calibrate(network, "per_tensor", SPEC, images)
    for quantizer in quantizers(prepared).values():
        if quantizer.weight:
            quantizer.scale.mul_(127 / levels)
    return prepared


def mean_error(prepared: nn.Module, network: nn.Module, images) -> float:
    return float((reference(prepared, images) - reference(network, images)).mean((0, 2, 3)).abs().max())


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("method", BIAS_CORRECTIONS)
def test_the_output_comes_closer_to_the_float_network_with_batchnorm_live_or_folded(relu_pair, images, fused, method):
    network = fuse_bn(relu_pair) if fused else relu_pair
    prepared = coarse(network, images)
    corrected = correct_bias(prepared, BiasCorrectionSpec(method), images)
    float_output = reference(network, images)
    before, after = (sqnr_db(float_output, reference(item, images)) for item in (prepared, corrected))
    assert after > before + 1.0


def test_in_order_the_mean_error_of_the_output_is_gone(relu_pair, images):
    """The last convolution is corrected for all that happens in front of it; its own rounding alone is left."""
    network = fuse_bn(relu_pair)
    prepared = coarse(network, images)
    corrected = correct_bias(prepared, BiasCorrectionSpec("sequential"), images)
    step = float(max(q.scale.max() for name, q in quantizers(prepared).items() if name.endswith("last")))
    assert mean_error(prepared, network, images) > 0.5 * step
    assert mean_error(corrected, network, images) < 0.2 * step


def test_fast_corrects_each_layer_by_what_rounding_its_own_weights_takes(images):
    torch.manual_seed(0)
    network = settled(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)), images)
    prepared = coarse(network, images)
    corrected = correct_bias(prepared, BiasCorrectionSpec("fast"), images)
    for name, before in (("0", images), ("1", reference(network[:1], images))):
        conv, changed = prepared.get_submodule(name), corrected.get_submodule(name)
        lost = (conv.conv.weight - conv.weight_quantizer(conv.conv.weight)).detach()[:, :, 0, 0]
        expected = lost @ before.mean((0, 2, 3))
        assert expected.abs().max() > 1e-4
        assert torch.allclose(changed.conv.bias - conv.conv.bias, expected, rtol=1e-2, atol=1e-6)


def test_what_a_relu_cuts_off_has_no_say(images):
    """Errors of a channel count where it is positive; where it is zero on both sides they are invisible."""
    torch.manual_seed(0)
    network = settled(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1)), images)
    prepared = coarse(network, images)
    corrected = correct_bias(prepared, BiasCorrectionSpec("fast"), images)
    conv = prepared.get_submodule("0")
    exact, rounded = conv.linear(images, *conv.folded()), conv.linear(images, *conv.rounded())
    positive = (exact > 0).float()
    expected = ((exact - rounded) * positive).sum((0, 2, 3)) / positive.sum((0, 2, 3))
    everywhere = (exact - rounded).mean((0, 2, 3))
    shift = corrected.get_submodule("0").conv.bias - conv.conv.bias
    assert torch.allclose(shift, expected, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(shift, everywhere, rtol=0.05)


@pytest.mark.parametrize("method", BIAS_CORRECTIONS)
def test_a_network_that_loses_nothing_is_left_alone(relu_pair, images, method):
    prepared = calibrate(relu_pair, "per_channel", SPEC, images)
    for quantizer in quantizers(prepared).values():
        quantizer.set_mode("off")
    corrected = correct_bias(prepared, BiasCorrectionSpec(method), images)
    for name, value in prepared.state_dict().items():
        assert torch.allclose(value, corrected.state_dict()[name], atol=1e-6), name


def test_only_so_many_images_are_looked_at(relu_pair, images):
    prepared = coarse(relu_pair, images)
    few, same, many = (
        correct_bias(prepared, BiasCorrectionSpec("fast", count), images[:length]).state_dict()
        for count, length in ((2, 12), (12, 2), (12, 12))
    )
    assert all(torch.equal(few[name], same[name]) for name in few)
    assert any(not torch.equal(few[name], many[name]) for name in few)


def test_behind_learned_rounding_the_calibrated_network_says_what_is_right(relu_pair, images):
    """Weights that were written over are no reference: corrected to themselves they would keep their error."""
    prepared = coarse(fuse_bn(relu_pair), images)
    written = copy.deepcopy(prepared)
    with torch.no_grad():
        for conv in quant_convs(written).values():
            conv.conv.weight.copy_(conv.weight_quantizer(conv.conv.weight))
    wanted = correct_bias(prepared, BiasCorrectionSpec("fast"), images).state_dict()
    corrected = correct_bias(written, BiasCorrectionSpec("fast"), images, original=prepared).state_dict()
    alone = correct_bias(written, BiasCorrectionSpec("fast"), images).state_dict()
    for name in (name for name in wanted if name.endswith("conv.bias")):
        assert torch.allclose(corrected[name], wanted[name], atol=1e-5)
        assert torch.allclose(alone[name], written.state_dict()[name], atol=1e-5)
        assert not torch.allclose(corrected[name], alone[name], atol=1e-4)
