"""BatchNorm while it learns in a quantized network: where its statistics start, and what moves along with them."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx

from quant.graph import bn_factor
from quant.prepare import QuantConv, quant_convs
from quant.qat.batch_renorm import batch_statistics

_MOMENTUM = 0.02
"""Small batches are poor statistics: a float network's own 0.1 would carry their noise into the folded weights."""
_DEAD = 1e-9
"""Above what a BatchNorm factor of zero leaves (``bn_factor``)."""


def live_convs(prepared: fx.GraphModule) -> dict[str, QuantConv]:
    """The convolutions whose BatchNorm learns its statistics in train mode."""
    return {name: conv for name, conv in quant_convs(prepared).items() if conv.bn is not None and not conv.bn_frozen}


@torch.no_grad()
def restart_statistics_(prepared: fx.GraphModule, batches: Iterable[Tensor]) -> None:
    """Set the running statistics to those of ``batches`` (Nx3xHxW) and the factors so that the function stays the same.

    A network that was trained with frozen statistics, or equalized, has others than its data have. Let loose, they
    would move towards the data's, and the function with them, faster than training can mend.
    """
    convs = live_convs(prepared)
    if not convs:
        return
    watch = _Watch(prepared, set(convs))
    for batch in batches:
        watch.run(batch)
    for name, conv in convs.items():
        bn = conv.bn
        assert bn is not None
        assert bn.running_mean is not None
        assert bn.running_var is not None
        bn.momentum = _MOMENTUM
        mean, square = torch.stack(watch.moments[name]).mean(0)
        factor, var = bn_factor(bn), (square - mean.square()).clamp_min(0.0)
        # In front of BatchNorm; a dead channel stays as it is.
        alive = (factor.abs() > _DEAD) & (var > _DEAD * bn.eps)
        centre = bn.running_mean + (mean - bn.bias) / factor
        spread = torch.sqrt(var / factor.square() + bn.eps)
        bn.bias.copy_(torch.where(alive, mean, bn.bias))
        bn.weight.copy_(torch.where(alive, factor * spread, bn.weight))
        bn.running_mean.copy_(torch.where(alive, centre, bn.running_mean))
        bn.running_var.copy_(torch.where(alive, spread.square() - bn.eps, bn.running_var))


class _Watch(fx.Interpreter):
    """Runs the network and sums up means and second moments of what BatchNorm gives, in front of the activation."""

    def __init__(self, prepared: fx.GraphModule, names: set[str]) -> None:
        super().__init__(prepared)
        self.names = names
        self.moments: dict[str, list[Tensor]] = {name: [] for name in names}

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """As the graph does, with a look at the value behind each of the convolutions."""
        conv = self.fetch_attr(target)
        if target not in self.names:
            return super().call_module(target, args, kwargs)
        y = conv.linear(args[0], *conv.rounded())
        mean, var = batch_statistics(y)
        self.moments[target].append(torch.stack([mean, var + mean.square()]).double())
        return conv.clamp(y)


class Statistics:
    """Counts the steps in which running statistics moved, on their device: it is not waited for."""

    def __init__(self, prepared: fx.GraphModule) -> None:
        norms = [conv.bn for conv in quant_convs(prepared).values() if conv.bn is not None]
        self.means = [bn.running_mean for bn in norms if bn.running_mean is not None]
        self.remember()

    def remember(self) -> None:
        """Begin to count."""
        self._moved, self._before = torch.zeros(()), self._now()

    @torch.no_grad()
    def count_(self) -> None:
        """Look at them after a step."""
        now = self._now()
        self._moved, self._before = self._moved.to(now.device) + (now != self._before).any(), now

    @property
    def moved(self) -> int:
        """Steps so far in which one of them moved."""
        return int(self._moved)

    def _now(self) -> Tensor:
        return torch.cat([mean.flatten() for mean in self.means]) if self.means else torch.zeros(0)


class MovingGrids:
    """Per-channel weight grids that move along with the factors of BatchNorm, so that no integer changes by them.

    A factor scales all weights of its channel, and where the grid has a scale a channel it can do the same. With one
    scale a tensor it cannot: there weights move on the grid.
    """

    def __init__(self, prepared: fx.GraphModule) -> None:
        self.convs = [c for c in quant_convs(prepared).values() if c.bn is not None and c.weight_quantizer.per_channel]
        self.remember()

    @torch.no_grad()
    def remember(self) -> None:
        """Take the factors as those that the grids are for."""
        self.factors = [self._factor(conv) for conv in self.convs]

    @torch.no_grad()
    def follow_(self) -> None:
        """Scale the grids by what the factors have changed by."""
        now = [self._factor(conv) for conv in self.convs]
        for conv, before, after in zip(self.convs, self.factors, now, strict=True):
            quantizer = conv.weight_quantizer
            ratio = torch.where(before > _DEAD, after / before, 1.0)
            if quantizer.mode == "freeze":
                for value in (quantizer.scale, quantizer.low, quantizer.high):
                    value.mul_(ratio)
            elif quantizer.learned is not None:
                quantizer.learned.scale.mul_(ratio)
        self.factors = now

    @staticmethod
    def _factor(conv: QuantConv) -> Tensor:
        assert conv.bn is not None
        return bn_factor(conv.bn).abs()
