"""That steps are measured by the grids of the quantizers: the same training however the channels are scaled."""

import copy

import pytest
import torch
from torch import Tensor, nn

from quant.calibrate import calibrate
from quant.prepare import prepare, quant_convs
from quant.qat.grid_adam import GridAdam, grid_units
from quant.recipe import CalibrateSpec
from quant.tracing.trace import fuse_bn
from tests.quant.networks import ReluPair, reference

RATE = 0.1


def rescaled(network: ReluPair, factor: float) -> ReluPair:
    """The same function: ``factor`` on what BatchNorm writes, undone where it is read."""
    scaled = copy.deepcopy(network)
    with torch.no_grad():
        scaled.bn.weight *= factor
        scaled.bn.bias *= factor
        scaled.depthwise.weight /= factor
    return scaled


def trained(network: nn.Module, granularity: str, images: Tensor, optimizer_of, steps: int = 4) -> Tensor:
    prepared = calibrate(network, granularity, CalibrateSpec(activation_range="minmax"), images)
    optimizer = optimizer_of(prepared)
    for _ in range(steps):
        optimizer.zero_grad()
        (prepared(images) - 1.0).square().mean().backward()
        optimizer.step()
    return reference(prepared, images)


def grid_adam(prepared):
    return GridAdam(grid_units(prepared), RATE, weight_decay=0.01)


def plain_adam(prepared):
    return torch.optim.AdamW(prepared.parameters(), RATE / 127, weight_decay=0.01)


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("prepare_source", [nn.Module.eval, fuse_bn], ids=["live_bn", "fused"])
def test_scaling_channels_changes_no_step(relu_pair, images, granularity, prepare_source):
    trained_outputs, plain = [], []
    for factor in (1.0, 1 / 256):
        source = prepare_source(rescaled(relu_pair, factor))
        trained_outputs.append(trained(source, granularity, images[:4], grid_adam))
        plain.append(trained(source, granularity, images[:4], plain_adam))
    start = trained(relu_pair, granularity, images[:4], grid_adam, steps=0)
    moved = (trained_outputs[0] - start).abs().max()
    assert moved > 1e-2
    assert (trained_outputs[0] - trained_outputs[1]).abs().max() < 0.05 * moved
    assert (plain[0] - plain[1]).abs().max() > moved, "the factor is one that Adam alone does not survive"


@pytest.mark.parametrize("bits", [8, 4])
def test_the_first_step_is_the_learning_rate_in_steps_of_the_grid(relu_pair, images, bits):
    widths = dict.fromkeys(quant_convs(prepare(relu_pair, "per_channel")), bits)
    spec = CalibrateSpec(activation_range="minmax")
    prepared = calibrate(fuse_bn(relu_pair), "per_channel", spec, images, weight_bits=widths)
    before = {name: conv.conv.weight.detach().clone() for name, conv in quant_convs(prepared).items()}
    optimizer = GridAdam(grid_units(prepared), RATE, weight_decay=0.0)
    prepared(images).square().mean().backward()
    optimizer.step()
    for name, conv in quant_convs(prepared).items():
        used = conv.conv.weight.grad.abs() > 1e-6
        moved = (conv.conv.weight - before[name]).abs() / conv.weight_quantizer.scale.reshape(-1, 1, 1, 1)
        assert used.any()
        assert torch.allclose(moved[used], torch.tensor(RATE), rtol=0.02)


def test_dead_channels_stay_dead_and_finite(relu_pair, images):
    dead = copy.deepcopy(relu_pair)
    with torch.no_grad():
        dead.bn.weight[2] = 0.0
        dead.bn.bias[2] = 0.0
    for source in (dead.eval(), fuse_bn(dead)):
        assert torch.isfinite(trained(source, "per_channel", images[:4], grid_adam)).all()
