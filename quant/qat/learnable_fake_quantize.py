"""Fake quantization with learned ranges: LSQ's scale (Esser et al. 2020, arXiv:1902.08153) and, for affine activations,
LSQ+'s zero point (Bhalgat et al. 2020, arXiv:2004.09576) as parameters."""

from typing import Any

import torch
from torch import Tensor, nn

from quant.straight_through import inside, rounded

_EPS = 1e-9


class LearnableFakeQuantize(nn.Module):
    """Fake quantization whose scale and zero point are parameters (``torch.ao.quantization``'s has this name too).

    Args:
        scale: where it starts, (1,), or one a channel of dimension 0.
        zero_point: where it starts, of the same shape. It learns where it lies inside of the integers: one at their end
            says that the values have one sign (behind ReLU, or weights), and stays.
        quant_min, quant_max: the integers.
        per_channel: whether ``scale`` is one a channel.
        limit: largest value that the range may hold (a clamp that the int8 convolution absorbs).
    """

    def __init__(
        self,
        scale: Tensor,
        zero_point: Tensor,
        quant_min: int,
        quant_max: int,
        *,
        per_channel: bool,
        limit: float | None,
    ) -> None:
        super().__init__()
        self.quant_min, self.quant_max = quant_min, quant_max
        self.per_channel, self.limit = per_channel, limit
        affine = quant_min == 0 and bool((zero_point > quant_min).all() and (zero_point < quant_max).all())
        self.scale = nn.Parameter(scale.detach().clone())
        self.zero_point = nn.Parameter(zero_point.detach().to(scale.dtype), requires_grad=affine)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` as it would come back from int8; the gradient reaches ``x``, the scale and the zero point."""
        elements = x[0].numel() if self.quant_min == 0 or self.per_channel else x.numel()
        damping = (elements * self.quant_max) ** -0.5
        limits = (self.quant_min, self.quant_max)
        result = _LearnedRounding.apply(x, self.scale, self.zero_point, limits, damping)
        assert isinstance(result, Tensor)
        return result

    @torch.no_grad()
    def project_(self) -> None:
        """Put the parameters back into the bounds of a quantizer, after every step of the optimizer."""
        self.scale.clamp_(min=_EPS)
        self.zero_point.clamp_(self.quant_min, self.quant_max)
        if self.limit is not None:
            self.scale.clamp_(max=self.limit / max(1.0, self.quant_max - float(self.zero_point.round())))


class _LearnedRounding(torch.autograd.Function):
    """Rounding with a straight-through gradient, and the derivatives by scale and zero point of both papers.

    Inside the range an output moves with the scale by its own rounding error, in steps; outside it is the end of the
    range, which moves with both.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, limits: tuple[int, int], damping: float
    ) -> Tensor:
        zero_point = zero_point.round()
        y = rounded(x, scale, zero_point, limits)
        ctx.save_for_backward(x, y, scale, zero_point)
        ctx.limits, ctx.damping = limits, damping
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, y, scale, zero_point = ctx.saved_tensors
        by_x = inside(gradient, x, scale, zero_point, ctx.limits)
        rows = (len(scale), -1)
        # By the rounding error y - x inside of the range, by y outside.
        moved = _products(gradient, y, rows) - _products(by_x, x, rows)
        by_zero_point = None
        if ctx.needs_input_grad[2]:
            by_zero_point = (by_x.reshape(rows).sum(1) - gradient.reshape(rows).sum(1)) * scale * ctx.damping
        return by_x, moved / scale * ctx.damping, by_zero_point, None, None


def _products(a: Tensor, b: Tensor, rows: tuple[int, int]) -> Tensor:
    products: Tensor = torch.linalg.vecdot(a.reshape(rows), b.reshape(rows))
    return products
