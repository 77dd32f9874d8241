"""SiLU with scales: the same function, and one through which a positive factor passes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from quant.equalization.equalize import equalize
from quant.recipe import EqualizeSpec
from quant.scaled_silu import ScaledSiLU, scale_silus
from quant.tracing.trace import trace
from tests.quant.networks import AllKinds, reference, settled


def test_without_scales_it_is_silu():
    x = torch.linspace(-20, 20, 101).reshape(1, 1, 101, 1).expand(2, 3, -1, -1)
    assert torch.allclose(ScaledSiLU(3)(x), F.silu(x), atol=1e-6)


def test_a_factor_of_each_channel_passes_through():
    steps = torch.tensor([-40.0, 0.0, 39.0])
    factor = 2 ** (steps / 8).reshape(3, 1, 1)
    x = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    scaled = ScaledSiLU(3)
    scaled.scale_(steps)
    assert torch.allclose(scaled(factor * x), factor * F.silu(x), rtol=1e-5)


@pytest.mark.parametrize("fused", [False, True])
def test_every_silu_behind_a_convolution_is_replaced_and_the_function_stays(depth_network, images, fused):
    from quant.tracing.trace import fuse_bn

    source = fuse_bn(depth_network) if fused else depth_network
    scaled = scale_silus(trace(source))
    assert sum(isinstance(module, nn.SiLU) for module in depth_network.modules()) > 20
    assert not any(isinstance(module, nn.SiLU) for module in scaled.modules())
    assert torch.allclose(reference(scaled, images[:2]), reference(source, images[:2]), atol=1e-5)


def test_a_silu_that_reads_no_convolution_stays(images):
    network = settled(nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.SiLU(), nn.Conv2d(4, 2, 1)), images)
    assert any(isinstance(module, nn.SiLU) for module in scale_silus(trace(network)).modules())


def test_scales_add_up_and_one_that_no_byte_holds_is_an_error():
    scaled = ScaledSiLU(2)
    for _ in range(3):
        scaled.scale_(torch.tensor([40.0, -3.0]))
    assert scaled.exponent.flatten().tolist() == [120, -9]
    with pytest.raises(OverflowError, match="out of range"):
        scaled.scale_(torch.tensor([40.0, 0.0]))


def test_equalization_leaves_scales_in_the_silus_only_if_asked(images):
    torch.manual_seed(0)
    network = settled(AllKinds(), images)
    with_silu, without = (
        equalize(network, EqualizeSpec(silu=silu, images=2), images, "per_channel") for silu in (True, False)
    )
    scales = [2 ** (module.exponent / 8) for module in with_silu.modules() if isinstance(module, ScaledSiLU)]
    assert len(scales) == 1
    assert scales[0].max() / scales[0].min() > 1.2
    assert not any(isinstance(module, ScaledSiLU) for module in without.modules())
