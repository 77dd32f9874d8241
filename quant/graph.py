"""The network as a torch.fx graph of plain modules: the form on which all techniques work."""

import copy
import operator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

ACTIVATIONS = (nn.ReLU, nn.ReLU6)
"""Activations that an int8 convolution absorbs: clamps of its output."""
ADDITIONS = (operator.add, operator.iadd, torch.add)
PRODUCTS = (operator.mul, operator.imul, torch.mul)
_DROPPED = (nn.Dropout, nn.Dropout2d, nn.Identity)


class UnsupportedNetworkError(ValueError):
    """The network holds something that the graph passes do not handle."""


@dataclass(frozen=True)
class ConvBlock:
    """One convolution with what belongs to it: BatchNorm (live) and a clamp activation, in graph order."""

    conv: fx.Node
    bn: fx.Node | None
    activation: fx.Node | None

    @property
    def last(self) -> fx.Node:
        """The node whose output is the block's output."""
        return self.activation or self.bn or self.conv


def trace(network: nn.Module) -> fx.GraphModule:
    """A traced copy of ``network`` without dropout and identities; module and parameter names are kept."""
    if isinstance(network, fx.GraphModule):
        return copy.deepcopy(network)
    try:
        graph_module = fx.symbolic_trace(copy.deepcopy(network))
    except (TypeError, fx.proxy.TraceError) as error:
        raise UnsupportedNetworkError(
            f"{type(network).__name__} cannot be traced by torch.fx: {error}. "
            "Its forward must not branch on tensor values."
        ) from error
    modules = dict(graph_module.named_modules())
    for node in list(graph_module.graph.nodes):
        if node.op == "call_module" and isinstance(modules[node.target], _DROPPED):
            node.replace_all_uses_with(node.args[0])
            graph_module.graph.erase_node(node)
    return finish(graph_module)


def finish(graph_module: fx.GraphModule) -> fx.GraphModule:
    """Check and recompile a graph after an edit, and drop modules that nothing calls any more."""
    graph_module.graph.lint()
    graph_module.delete_all_unused_submodules()
    graph_module.recompile()
    return graph_module


def module_of(graph_module: fx.GraphModule, node: fx.Node | None) -> nn.Module | None:
    """The module that a ``call_module`` node calls, else None."""
    if node is None or node.op != "call_module":
        return None
    return graph_module.get_submodule(str(node.target))


def set_module(graph_module: fx.GraphModule, name: str, module: nn.Module) -> None:
    """Put ``module`` at the dotted ``name``, in place of what is there."""
    parent, _, leaf = name.rpartition(".")
    setattr(graph_module.get_submodule(parent), leaf, module)


def _only_user(graph_module: fx.GraphModule, node: fx.Node, kinds: tuple[type, ...]) -> fx.Node | None:
    if len(node.users) != 1:
        return None
    user = next(iter(node.users))
    return user if isinstance(module_of(graph_module, user), kinds) else None


def conv_blocks(graph_module: fx.GraphModule) -> list[ConvBlock]:
    """All convolutions in execution order, each with its BatchNorm and its clamp activation."""
    blocks: list[ConvBlock] = []
    seen: set[nn.Module] = set()
    for node in graph_module.graph.nodes:
        conv = module_of(graph_module, node)
        if not isinstance(conv, nn.Conv2d):
            continue
        if conv in seen:
            raise UnsupportedNetworkError(f"convolution {node.target} is called twice; give each call its own copy.")
        if conv.padding_mode != "zeros":
            raise UnsupportedNetworkError(f"convolution {node.target} pads by {conv.padding_mode}; expected zeros.")
        seen.add(conv)
        bn = _only_user(graph_module, node, (nn.BatchNorm2d,))
        activation = _only_user(graph_module, bn or node, ACTIVATIONS)
        blocks.append(ConvBlock(node, bn, activation))
    return blocks


def is_interpolate(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the node resizes its input (functional or nn.Upsample)."""
    return node.target is F.interpolate or isinstance(module_of(graph_module, node), nn.Upsample)


def is_average_pool(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the node averages over space."""
    return node.target is F.adaptive_avg_pool2d or isinstance(
        module_of(graph_module, node), nn.AdaptiveAvgPool2d | nn.AvgPool2d
    )


def is_linear_in_place(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether output values are averages, copies or clamps at zero of input values of the same channel.

    Such an operator commutes with a positive scale of a channel and keeps the input's quantization.
    """
    kinds = (nn.ReLU, nn.MaxPool2d, nn.ZeroPad2d)
    functions = (F.relu, torch.relu, F.max_pool2d)
    if is_interpolate(graph_module, node) or is_average_pool(graph_module, node):
        return True
    return node.target in functions or isinstance(module_of(graph_module, node), kinds)


def bn_factor(bn: nn.BatchNorm2d) -> Tensor:
    """What a frozen BatchNorm multiplies each channel by, kept off zero so that it can be divided by (C,)."""
    assert bn.running_var is not None
    factor = bn.weight / torch.sqrt(bn.running_var + bn.eps)
    tiny = torch.full_like(factor, 1e-12).copysign(factor)
    return torch.where(factor.abs() < 1e-12, tiny, factor)


def fold(weight: Tensor, bias: Tensor | None, bn: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor | None]:
    """Convolution weight and bias with a frozen BatchNorm folded in (Jacob et al. 2018, arXiv:1712.05877)."""
    if bn is None:
        return weight, bias
    assert bn.running_mean is not None
    factor = bn_factor(bn)
    shifted = -bn.running_mean if bias is None else bias - bn.running_mean
    return weight * factor.reshape(-1, 1, 1, 1), bn.bias + shifted * factor


@torch.no_grad()
def fuse_bn(network: nn.Module) -> fx.GraphModule:
    """Fold every Conv-BatchNorm pair into one convolution with bias; the float function stays the same."""
    graph_module = trace(network)
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
