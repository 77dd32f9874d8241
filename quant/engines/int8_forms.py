"""Operators in forms that int8 kernels have, in the decomposed network, for the engines that need them."""

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn

from quant.engines.decomposed import DEQUANTIZE, QUANTIZE, ConstantScaledSiLU
from quant.graph import finish, joined, module_of

_INT8 = (-128, 127, torch.int8)
_GATE_INPUT = (1 / 16, 0)
"""Scale and zero point in front of a gate's sigmoid: from -8 to 8, where sigmoid is 0.0003 and 0.9997."""
_LARGEST_OF_4_BITS = 7


def fits_in_4_bits(weight: Tensor) -> bool:
    """Whether the integers of a convolution (out x in x h x w) do, and a row of them is whole bytes."""
    return weight[0].numel() % 2 == 0 and int(weight.abs().max()) <= _LARGEST_OF_4_BITS


class _Slope(nn.Module):
    """A factor a channel as an int8 constant: 256 levels from 0 to the largest."""

    levels: Tensor

    def __init__(self, slope: Tensor) -> None:
        super().__init__()
        self.scale = float(slope.max()) / 255
        self.register_buffer("levels", (torch.round(slope / self.scale) - 128).to(torch.int8).reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        slope: Tensor = DEQUANTIZE(self.levels, self.scale, -128, *_INT8)
        return x * slope


def int8_gates(network: fx.GraphModule, levels: tuple[float, int]) -> fx.GraphModule:
    """``x * sigmoid(x / f)`` with the gate in int8 too: in float it costs half as much as all convolutions together.

    The gate is rounded up to twice more than the recipe's simulation does, at fixed levels; ``levels`` are scale and
    zero point behind its sigmoid.
    """
    graph = network.graph
    for node in list(graph.nodes):
        module = module_of(network, node)
        if not isinstance(module, ConstantScaledSiLU | nn.SiLU) or node.args[0].target is not DEQUANTIZE:
            continue
        with graph.inserting_before(node):
            gate = graph.call_function(DEQUANTIZE, node.args[0].args)  # partitioners want one for each reader
            if isinstance(module, ConstantScaledSiLU) and not bool((module.slope == 1).all()):
                network.add_module(f"{node.name}_slope", _Slope(module.slope))
                gate = _rounded(graph, graph.call_module(f"{node.name}_slope", (gate,)), (*_GATE_INPUT, *_INT8))
            gate = _rounded(graph, graph.call_function(torch.sigmoid, (gate,)), (*levels, *_INT8))
            product = graph.call_function(operator.mul, (node.args[0], gate))
        node.replace_all_uses_with(product)
        graph.erase_node(node)
    return finish(network)


def requantized_concatenations(network: fx.GraphModule) -> fx.GraphModule:
    """Kernels concatenate values of one scale only: round each part to the result's levels first, as int8 does."""
    graph = network.graph
    for node in list(graph.nodes):
        readers = list(node.users)
        if not joined(node) or [reader.target for reader in readers] != [QUANTIZE]:
            continue
        for part in list(node.all_input_nodes):
            with graph.inserting_before(node):
                node.replace_input_with(part, _rounded(graph, part, readers[0].args[1:]))
    return finish(network)


def _rounded(graph: fx.Graph, value: fx.Node, levels: Any) -> fx.Node:
    """Quantize and dequantize ``value``; ``levels``: scale, zero point, least, greatest, dtype."""
    return graph.call_function(DEQUANTIZE, (graph.call_function(QUANTIZE, (value, *levels)), *levels))
