"""From a network to its torch.fx graph of plain modules, with BatchNorm live or folded."""

import copy
from unittest.mock import patch

import torch
from torch import Tensor, fx, nn

from model.network.tracing import trace_with_sizes
from quant.graph import conv_blocks, finish, fold, module_of
from quant.tracing.attention import unfold_attention_
from quant.tracing.exported import trace_exported
from quant.tracing.normal_form.normalize import normalize
from quant.tracing.refusal import refusal
from quant.tracing.same_function import require_same_function
from quant.tracing.weights import settle_weights_

_DROPPED = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.Identity)


def trace(network: nn.Module, example: Tensor | None = None) -> fx.GraphModule:
    """A traced copy of ``network`` without dropout and identities; module and parameter names are kept.

    With an ``example`` (1xCxHxW) the sizes that its forward reads are constants, and the graph is in normal form, with
    linear layers as 1x1 convolutions and a copy of a module for each of its calls; what torch.fx cannot record is
    recorded by torch.export. Without one, sizes cannot be read. A graph is taken as it is. Raises
    UnsupportedNetworkError, in one line, where the network cannot be traced.
    """
    if isinstance(network, fx.GraphModule):
        return copy.deepcopy(network)
    if example is None:
        try:
            return finish(_without_dropout(fx.symbolic_trace(copy.deepcopy(network))))
        except (TypeError, fx.proxy.TraceError) as error:
            raise refusal(network, error) from error
    device = next((parameter.device for parameter in network.parameters()), example.device)
    errors = []
    for record in (_trace_fx_all, trace_exported, _trace_fx):
        try:
            recorded = record(settle_weights_(copy.deepcopy(network)), example.to(device))
            graph_module = normalize(_without_dropout(recorded))
            require_same_function(network, graph_module, example.to(device))
            return graph_module
        except Exception as error:  # whatever a forward does with a value that is recorded
            errors.append(error)
    raise refusal(network, *errors[:2]) from errors[1]


def _trace_fx_all(network: nn.Module, example: Tensor) -> fx.GraphModule:
    """Functions that ``torch.fx.wrap`` would make one operator, such as torchvision's attention, are recorded too."""
    with patch.dict("torch.fx._symbolic_trace._wrapped_fns_to_patch", clear=True):
        return _trace_fx(network, example)


def _trace_fx(network: nn.Module, example: Tensor) -> fx.GraphModule:
    return trace_with_sizes(unfold_attention_(network), example)


def _without_dropout(graph_module: fx.GraphModule) -> fx.GraphModule:
    for node in list(graph_module.graph.nodes):
        if isinstance(module_of(graph_module, node), _DROPPED):
            node.replace_all_uses_with(node.args[0])
            graph_module.graph.erase_node(node)
    return graph_module


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
