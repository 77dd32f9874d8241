"""High-bias absorption: the same function, with less range in front of the next convolution."""

import copy

import pytest
import torch
from torch import nn

from quant.calibrate import calibrate
from quant.equalization.absorb import absorb_high_biases_
from quant.equalization.equalize import equalize
from quant.recipe import CalibrateSpec, EqualizeSpec
from quant.tracing.trace import fuse_bn, trace
from tests.quant.networks import ReluPair, reference, settled


@pytest.fixture
def raised(images):
    """A network of which channel 2 in front of the last convolution never meets its ReLU, and channel 3 is dead."""
    torch.manual_seed(0)
    network = settled(ReluPair(), images)
    with torch.no_grad():
        network.bn2.bias[2] += 120.0
        network.bn2.bias[3] = -60.0
    return network


@pytest.mark.parametrize("form", ["live", "fused", "bn_behind"])
def test_the_function_stays_and_the_range_shrinks(raised, images, form):
    if form == "bn_behind":
        raised.last = nn.Sequential(nn.Conv2d(8, 4, 1, bias=False), nn.BatchNorm2d(4))
        settled(raised.last, torch.rand(8, 8, 6, 6))
    network = fuse_bn(raised) if form == "fused" else trace(raised)
    before = reference(network, images)
    taken = absorb_high_biases_(network, images)
    assert list(taken) == ["depthwise"], "the first ReLU is read by a convolution that pads with zeros"
    assert taken["depthwise"][2] > 100.0
    assert (taken["depthwise"] > 0).sum() == 1
    assert torch.allclose(reference(network, images), before, atol=1e-3)
    other = images.flip(3)
    assert torch.allclose(reference(network, other), reference(raised, other), atol=1e-3), "on other images too"


def test_it_gains_what_the_constant_cost(raised, images):
    exact = reference(raised, images)

    def cost(absorb: bool) -> tuple[float, float]:
        network = equalize(raised, EqualizeSpec("weights", absorb=absorb), images, "per_channel")
        prepared = calibrate(network, "per_channel", CalibrateSpec(activation_range="minmax"), images)
        noise = float(((reference(prepared, images) - exact) ** 2).mean())
        return float(prepared.quantizers.depthwise.scale), noise

    (absorbed_scale, absorbed_noise), (scale, noise) = cost(absorb=True), cost(absorb=False)
    assert absorbed_scale < 0.2 * scale
    assert absorbed_noise < 0.7 * noise, "the output still rounds what the constant became"


def test_a_value_that_anything_but_a_convolution_reads_is_left_alone(raised, images):
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair = copy.deepcopy(raised)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            pair = self.pair
            y = pair.act2(pair.bn2(pair.depthwise(pair.act(pair.bn(pair.first(x))))))
            return pair.last(y) + y.mean((1, 2, 3), keepdim=True)

    network = trace(Twice().eval())
    assert absorb_high_biases_(network, images) == {}
