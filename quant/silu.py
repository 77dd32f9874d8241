"""SiLU whose channels may carry scales of their own, so that equalization passes through it.

``silu(x) = x * sigmoid(x)`` is not homogeneous, which stops cross-layer equalization. With the scale kept inside the
sigmoid it is: ``x * sigmoid(x / f)`` of ``f * x`` is ``f * silu(x)`` for any f > 0 (the decomposition that I-LLM,
arXiv:2405.17849, section 3.2, uses on gated linear units). It stays one elementwise function of one 8-bit value,
rounded once in front and once behind, as SiLU is.
"""

import torch
from torch import Tensor, fx, nn

from quant.graph import finish, module_of, set_module


class ScaledSiLU(nn.Module):
    """``x * sigmoid(x * inverse_scale)``, NxCxHxW to the same, with one inverse scale a channel (1: plain SiLU)."""

    inverse_scale: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("inverse_scale", torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """NxCxHxW to the same shape."""
        return x * torch.sigmoid(x * self.inverse_scale)


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
                set_module(graph_module, str(node.target), ScaledSiLU(conv.out_channels))
    return finish(graph_module)
