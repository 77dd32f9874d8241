"""Batch renormalization: the folded network's output, the batch statistics' gradient."""

import pytest
import torch
from torch import nn

from quant.graph import bn_factor
from quant.prepare import QuantConv
from quant.qat.batch_renorm import batch_renorm, batch_statistics
from tests.quant.networks import noise

BATCH, CHANNELS = 6, 5


def subject(seed: int = 0) -> tuple[torch.Tensor, nn.BatchNorm2d]:
    """Outputs of a convolution, and a BatchNorm whose running statistics are not theirs."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(BATCH, CHANNELS, 7, 7, generator=generator) * torch.arange(1.0, 6.0).reshape(1, -1, 1, 1) + 0.7
    bn = nn.BatchNorm2d(CHANNELS, momentum=0.1)
    for value, low, high in ((bn.weight, -1.5, 1.5), (bn.bias, -1.0, 1.0), (bn.running_mean, -1.0, 1.0)):
        nn.init.uniform_(value, low, high, generator=generator)
    nn.init.uniform_(bn.running_var, 1.0, 9.0, generator=generator)
    return z, bn


def by_the_paper(z: torch.Tensor, bn: nn.BatchNorm2d) -> torch.Tensor:
    """Algorithm 1 of arXiv:1702.03275 without limits of r and d."""
    mean, var = z.mean((0, 2, 3), keepdim=True), z.var((0, 2, 3), correction=0, keepdim=True)
    shape = (1, -1, 1, 1)
    deviation = torch.sqrt(bn.running_var + bn.eps).reshape(shape)
    r = (var.sqrt() / deviation).detach()
    d = ((mean - bn.running_mean.reshape(shape)) / deviation).detach()
    return ((z - mean) / var.sqrt() * r + d) * bn.weight.reshape(shape) + bn.bias.reshape(shape)


def test_output_and_gradients_are_those_of_the_paper():
    results = []
    for renormalized in (False, True):
        z, bn = subject()
        z.requires_grad_()
        factor = bn_factor(bn).detach()
        y = batch_renorm(z * factor.reshape(1, -1, 1, 1), bn, factor, None) if renormalized else by_the_paper(z, bn)
        (y * torch.linspace(-1.0, 2.0, y.numel()).reshape(y.shape)).sum().backward()
        results.append((y, z.grad, bn.weight.grad, bn.bias.grad))
    for expected, found in zip(*results, strict=True):
        assert torch.allclose(expected, found, rtol=1e-3, atol=2e-4 * float(expected.detach().abs().max()))


def test_a_shift_or_scale_of_what_is_normalized_gets_no_gradient():
    z, bn = subject()
    scale, shift = torch.ones(CHANNELS, requires_grad=True), torch.zeros(CHANNELS, requires_grad=True)
    factor = bn_factor(bn).detach()
    moved = z * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)
    y = batch_renorm(moved * factor.reshape(1, -1, 1, 1), bn, factor, None)
    (y * torch.linspace(-1.0, 2.0, y.numel()).reshape(y.shape)).sum().backward()
    assert bn.weight.grad.abs().min() > 1.0
    assert scale.grad.abs().max() < 1e-2
    assert shift.grad.abs().max() < 1e-2


@pytest.mark.parametrize("with_bias", [False, True])
def test_running_statistics_move_like_those_of_batchnorm(with_bias):
    z, bn = subject()
    _, plain = subject()
    bias = torch.linspace(-2.0, 2.0, CHANNELS) if with_bias else None
    factor = bn_factor(bn).detach()
    batch_renorm(z * factor.reshape(1, -1, 1, 1), bn, factor, bias)
    plain.train()(z if bias is None else z + bias.reshape(1, -1, 1, 1))
    assert torch.allclose(bn.running_mean, plain.running_mean, atol=1e-5)
    assert torch.allclose(bn.running_var, plain.running_var, rtol=1e-4)


def test_statistics_are_those_of_each_channel():
    z, _ = subject()
    mean, var = batch_statistics(z)
    assert torch.allclose(mean, z.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(var, z.var((0, 2, 3), correction=0), rtol=1e-4)


@pytest.mark.parametrize("conv_bias", [False, True])
def test_a_convolution_computes_the_same_with_live_and_with_frozen_statistics(conv_bias):
    torch.manual_seed(0)
    _, bn = subject()
    conv = QuantConv(nn.Conv2d(3, CHANNELS, 3, bias=conv_bias), bn, None, "per_channel")
    conv.weight_quantizer.set_range_from_weight(conv.folded()[0], "minmax")
    conv.weight_quantizer.set_mode("freeze")
    x = torch.randn(4, 3, 9, 9)
    expected = conv.eval()(x)
    live = conv.train()(x)
    assert conv.bn.training
    assert noise(live, expected) < 1e-6
    conv.freeze_bn_()
    assert noise(conv.train()(x), conv.eval()(x)) == 0.0, "now with the statistics that have moved"
    assert noise(conv(x), expected) > 1e-3
