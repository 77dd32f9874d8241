"""The network as a torch.fx graph of plain modules: the form on which all techniques work."""

import operator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

ACTIVATIONS = (nn.ReLU, nn.ReLU6)
"""Activations that an int8 convolution absorbs: clamps of its output."""
_RESIZING = ("nearest", "nearest-exact", "bilinear", "area")
"""Ways to resize that have int8 kernels; bicubic overshoots."""
ADDITIONS = (operator.add, operator.iadd, torch.add)
PRODUCTS = (operator.mul, operator.imul, torch.mul)
SPLITS = (torch.chunk, torch.split, torch.unbind, torch.tensor_split, "chunk", "split", "unbind", "tensor_split")
"""Operators that give several parts of a value."""
_REARRANGING: tuple[Any, ...] = (
    *(torch.flatten, torch.reshape, torch.transpose, torch.permute, torch.squeeze, torch.unsqueeze, operator.getitem),
    *("flatten", "view", "reshape", "transpose", "permute", "squeeze", "unsqueeze", "contiguous"),
    *(F.pixel_shuffle, F.pixel_unshuffle, F.channel_shuffle),
)
_REARRANGING_MODULES = (nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle)


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


def finish(graph_module: fx.GraphModule) -> fx.GraphModule:
    """Check and recompile a graph after an edit, and drop modules that nothing calls any more."""
    graph_module.graph.lint()
    graph_module.delete_all_unused_submodules()
    graph_module.recompile()
    return graph_module


def note_names_(graph_module: fx.GraphModule) -> fx.GraphModule:
    """Have ``torch.export`` note in ``from_node`` what became of each node, as it does where nodes have notes."""
    for node in graph_module.graph.nodes:
        node.meta.setdefault("name", node.name)
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


def only_user(graph_module: fx.GraphModule, node: fx.Node, kinds: tuple[type, ...]) -> fx.Node | None:
    """The one reader of the node's value where it is a module of these kinds, else None."""
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
        bn = only_user(graph_module, node, (nn.BatchNorm2d,))
        activation = only_user(graph_module, bn or node, ACTIVATIONS)
        blocks.append(ConvBlock(node, bn, activation))
    return blocks


def is_interpolate(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the node resizes its input (functional or nn.Upsample) within the range of its values."""
    module = module_of(graph_module, node)
    if isinstance(module, nn.Upsample):
        return module.mode in _RESIZING
    if node.target is not F.interpolate:
        return False
    return argument(node, 3, "mode", "nearest") in _RESIZING and not argument(node, 6, "antialias", False)


def argument(node: fx.Node, place: int, name: str, default: Any = None) -> Any:
    """What a call is given for an argument, by its place or by its name."""
    return node.kwargs.get(name, node.args[place] if len(node.args) > place else default)


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


def keeps_quantization(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether output values are averages, copies or clamps at zero of input values, of whatever channel, or zeros."""
    if any(one.meta.get("gives_tuple") for one in (node, *node.all_input_nodes)):
        return False
    if is_linear_in_place(graph_module, node) or node.target in _REARRANGING or is_zero_pad(node):
        return True
    return isinstance(module_of(graph_module, node), _REARRANGING_MODULES)


def passes_on(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the node gives the values of its input, all or in parts, without computing others."""
    return node.target in SPLITS or keeps_quantization(graph_module, node)


def is_zero_pad(node: fx.Node) -> bool:
    """Whether the node puts zeros around its input, which every activation quantizer has a level for."""
    if node.target is not F.pad:
        return False
    return argument(node, 2, "mode", "constant") == "constant" and not argument(node, 3, "value")


def constants(graph_module: fx.GraphModule) -> set[fx.Node]:
    """The nodes that do not depend on the images, or on no more than their number."""
    found: set[fx.Node] = set()
    for node in graph_module.graph.nodes:
        is_size = node.op == "call_method" and node.target == "size"
        inputs = node.all_input_nodes
        if node.op == "get_attr" or is_size or (inputs and node.op != "output" and found.issuperset(inputs)):
            found.add(node)
    return found


def read_in_int8(graph_module: fx.GraphModule, constant: set[fx.Node], in_float: set[fx.Node]) -> set[fx.Node]:
    """Values that an operator with int8 kernels reads, itself or behind others that only move values.

    Those ``in_float`` compute in float although they have kernels.
    """
    found: set[fx.Node] = set()
    for node in reversed(graph_module.graph.nodes):
        for user in node.users:
            computes = user not in in_float and has_int8_kernel(graph_module, user, constant)
            if computes or (passes_on(graph_module, user) and user in found):
                found.add(node)
    return found


def has_int8_kernel(graph_module: fx.GraphModule, node: fx.Node, constant: set[fx.Node]) -> bool:
    """Whether the node computes new values, and can do so in int8."""
    if node.target in (*ADDITIONS, *PRODUCTS):
        return len(node.all_input_nodes) == 2 and constant.isdisjoint(node.all_input_nodes)
    kinds = (nn.Conv2d, nn.Sigmoid)
    return bool(joined(node)) or node.target is torch.sigmoid or isinstance(module_of(graph_module, node), kinds)


def joined(node: fx.Node) -> list[fx.Node]:
    """The values that a concatenation joins; none for another operator, and for the parts of one value."""
    if node.target is not torch.cat:
        return []
    parts = argument(node, 0, "tensors")
    return list(parts) if isinstance(parts, list | tuple) else []


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
