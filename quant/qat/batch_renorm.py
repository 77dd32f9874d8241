"""Batch renormalization (Ioffe 2017, arXiv:1702.03275): BatchNorm that learns, and computes what int8 will compute.

Its output is that of the running statistics, as in the folded network, so that small batches bring no noise into it.
Its gradient is that of the batch statistics, and those move the running ones. The paper's limits on r and d are for the
first steps of a network from scratch; here they are infinite.
"""

from typing import Any

import torch
from torch import Tensor, nn

_TINY = 1e-12


def batch_renorm(y: Tensor, bn: nn.BatchNorm2d, factor: Tensor, bias: Tensor | None) -> Tensor:
    """``y + bn.bias + (bias - bn.running_mean) * factor``; moves the running statistics of ``bn`` by its momentum.

    Args:
        y: (N, C, H, W), what the convolution gives whose weights hold ``factor`` and that has no bias.
        factor: (C,), what ``bn`` multiplies each channel by (``bn_factor``), without a gradient.
        bias: (C,), that of the convolution in front of ``bn``.
    """
    assert bn.running_mean is not None
    assert bn.running_var is not None
    mean, var = batch_statistics(y)
    offset = 0.0 if bias is None else bias.detach()
    deviation = torch.sqrt(bn.running_var + bn.eps)
    centre = (bn.running_mean - offset) * factor
    result = _Renormalized.apply(y, bn.weight, bn.bias, centre, torch.sqrt(var) + _TINY, mean, factor * deviation)
    assert isinstance(result, Tensor)
    _move_(bn, mean / factor + offset, var / factor.square(), y.numel() // len(factor))
    return result


@torch.no_grad()
def batch_statistics(y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of each channel, (C,) each, of ``y`` (N, C, H, W)."""
    count = y.numel() / y.shape[1]
    flat = y.flatten(2)
    mean = flat.sum((0, 2)) / count  # on a CPU sums and products are seven times as fast as torch.var_mean
    square = torch.linalg.vecdot(flat, flat).sum(0) / count
    return mean, (square - mean.square()).clamp_min(0.0)


@torch.no_grad()
def _move_(bn: nn.BatchNorm2d, mean: Tensor, var: Tensor, count: int) -> None:
    assert bn.running_mean is not None
    assert bn.running_var is not None
    assert bn.momentum is not None
    bn.running_mean.lerp_(mean, bn.momentum)
    bn.running_var.lerp_(var * (count / max(count - 1, 1)), bn.momentum)


class _Renormalized(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, y: Tensor, weight: Tensor, bias: Tensor, centre: Tensor, spread: Tensor, mean: Tensor, unit: Tensor
    ) -> Tensor:
        ctx.save_for_backward(y, centre, spread, mean, unit)
        return y + (bias - centre).reshape(1, -1, 1, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        y, centre, spread, mean, unit = ctx.saved_tensors
        by_y, by_hat, by_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, y, spread, None, None, mean, 1.0 / spread, True, 0.0, [True, True, True]
        )
        # The output is bias + weight * (y - centre) / unit, where unit is the weight, or nearly 0 where that is 0.
        by_weight = (by_hat * spread + (mean - centre) * by_bias) / unit
        return by_y, by_weight, by_bias, None, None, None, None
