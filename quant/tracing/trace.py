"""From a network to its torch.fx graph of plain modules, with BatchNorm live or folded."""

import copy

import torch
from torch import Tensor, fx, nn

from model.network.tracing import SizesError, trace_with_sizes
from quant.graph import UnsupportedNetworkError, conv_blocks, finish, fold, module_of
from quant.tracing.attention import unfold_attention_
from quant.tracing.normal_form import normalize

_DROPPED = (nn.Dropout, nn.Dropout2d, nn.Identity)


def trace(network: nn.Module, example: Tensor | None = None) -> fx.GraphModule:
    """A traced copy of ``network`` without dropout and identities; module and parameter names are kept.

    With an ``example`` (1xCxHxW) the sizes that its forward reads are constants, and the graph is in normal form, with
    linear layers as 1x1 convolutions; without one, sizes cannot be read. A graph is taken as it is. Raises
    UnsupportedNetworkError where the network cannot be traced.
    """
    if isinstance(network, fx.GraphModule):
        return copy.deepcopy(network)
    try:
        if example is None:
            graph_module = fx.symbolic_trace(copy.deepcopy(network))
        else:
            device = next((parameter.device for parameter in network.parameters()), example.device)
            graph_module = trace_with_sizes(unfold_attention_(copy.deepcopy(network)), example.to(device))
    except (TypeError, SizesError, fx.proxy.TraceError) as error:
        raise UnsupportedNetworkError(
            f"{type(network).__name__} cannot be traced by torch.fx: {error}. "
            "Its forward must not branch on tensor values."
        ) from error
    modules = dict(graph_module.named_modules())
    for node in list(graph_module.graph.nodes):
        if node.op == "call_module" and isinstance(modules[node.target], _DROPPED):
            node.replace_all_uses_with(node.args[0])
            graph_module.graph.erase_node(node)
    return finish(graph_module if example is None else normalize(graph_module))


@torch.no_grad()
def fuse_bn(network: nn.Module, example: Tensor | None = None) -> fx.GraphModule:
    """Fold every Conv-BatchNorm pair into one convolution with bias; the float function stays the same.

    ``example``: see ``trace``.
    """
    graph_module = trace(network, example)
    for block in conv_blocks(graph_module):
        if block.bn is None:
            continue
        conv, bn = module_of(graph_module, block.conv), module_of(graph_module, block.bn)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(bn, nn.BatchNorm2d)
        weight, bias = fold(conv.weight, conv.bias, bn)
        conv.weight, conv.bias = (
            nn.Parameter(weight),
            nn.Parameter(bias if bias is not None else torch.zeros(len(weight))),
        )
        block.bn.replace_all_uses_with(block.conv)
        graph_module.graph.erase_node(block.bn)
    return finish(graph_module)
