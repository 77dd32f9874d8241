"""SiLU whose channels may carry scales of their own, so that equalization passes through it.

``silu(x) = x * sigmoid(x)`` is not homogeneous, which stops cross-layer equalization. With the scale kept inside the
sigmoid it is: ``x * sigmoid(x / f)`` of ``f * x`` is ``f * silu(x)`` for any f > 0 (the decomposition that I-LLM,
arXiv:2405.17849, section 3.2, uses on gated linear units). It stays one elementwise function of one 8-bit value,
rounded once in front and once behind, as SiLU is. Scales come in eighths of an octave: a channel costs one byte.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from quant.graph import finish, module_of, set_module
from quant.ranges import ElementwiseConsumer

STEPS_PER_OCTAVE = 8


class ScaledSiLU(nn.Module):
    """``x * sigmoid(x / f)``, NxCxHxW to the same, with ``f = 2 ** (exponent / 8)`` a channel (0: plain SiLU)."""

    exponent: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inplace = False
        """Whether the input is overwritten, which saves an allocation; only where nothing else reads it."""
        self.register_buffer("exponent", torch.zeros(channels, 1, 1, dtype=torch.int8))

    def forward(self, x: Tensor) -> Tensor:
        """NxCxHxW to the same shape."""
        scale = self.scale()
        if self.inplace:
            return F.silu(x.mul_(1.0 / scale), inplace=True).mul_(scale)
        return F.silu(x * (1.0 / scale)) * scale  # one pass where sigmoid and its product would be two

    def scale(self) -> Tensor:
        """The scale f of each channel, (C, 1, 1)."""
        return torch.exp2(self.exponent / STEPS_PER_OCTAVE)

    def consumer(self) -> ElementwiseConsumer:
        """The function that a range in front of it is searched for: one kind for each scale that a channel has."""
        exponents, kinds = torch.unique(self.exponent.flatten().cpu(), return_inverse=True)
        slopes = torch.exp2(exponents.double() / -STEPS_PER_OCTAVE)
        return ElementwiseConsumer(lambda x, kind: x * torch.sigmoid(x * slopes[kind]), kinds)

    @torch.no_grad()
    def scale_(self, steps: Tensor) -> None:
        """Multiply the scales by ``2 ** (steps / 8)``, whole numbers (C,). Raises OverflowError beyond 15 octaves."""
        exponent = self.exponent + steps.reshape(-1, 1, 1).to(self.exponent.device)
        if exponent.abs().max() > 127:
            raise OverflowError(f"a scale of 2 ** {float(exponent.abs().max()) / STEPS_PER_OCTAVE:.1f} is out of range")
        self.exponent.copy_(exponent)


def scale_silus(graph_module: fx.GraphModule) -> fx.GraphModule:
    """Put a ScaledSiLU in place of every SiLU behind a convolution (and its BatchNorm), in place.

    Which ones follows from the graph alone, so that a saved network is rebuilt the same way.
    """
    for node in graph_module.graph.nodes:
        if isinstance(module_of(graph_module, node), nn.SiLU):
            source = node.args[0]
            if isinstance(module_of(graph_module, source), nn.BatchNorm2d):
                source = source.args[0]
            conv = module_of(graph_module, source)
            if isinstance(conv, nn.Conv2d):
                set_module(graph_module, str(node.target), ScaledSiLU(conv.out_channels).to(conv.weight.device))
    return finish(graph_module)
