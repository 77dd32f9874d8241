"""Parallel branches merged into the one convolution that they are: structural reparameterization.

Ding et al. 2021, "RepVGG: Making VGG-style ConvNets Great Again", arXiv:2101.03697; with scaled and subtracted branches
Vasu et al. 2023, "FastViT", arXiv:2303.14189. A network is trained with the branches, which add up convolutions,
BatchNorms and the value itself with no activation between, and deployed with the convolution. It is found in the graph:
a network needs no method of its own for it.
"""

import operator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from quant.graph import ADDITIONS, PRODUCTS, bn_factor, finish, module_of, set_module
from quant.tracing.trace import trace

_DIFFERENCES = (operator.sub, operator.isub, torch.sub)


@dataclass(frozen=True)
class _Affine:
    """A value as a convolution of another: O x I/groups x K x K with odd K and zeros around that keep the size.

    ``nodes`` compute it in the graph, and ``weights`` is how many weights they have in all.
    """

    weight: Tensor
    bias: Tensor
    groups: int
    stride: tuple[int, int]
    nodes: frozenset[fx.Node]
    weights: int

    def scaled(self, factor: Tensor, node: fx.Node) -> "_Affine":
        """Each channel of the value times its factor (O,)."""
        weight, bias = self.weight * factor.reshape(-1, 1, 1, 1), self.bias * factor
        return replace(self.through(node), weight=weight, bias=bias)

    def through(self, node: fx.Node) -> "_Affine":
        """The same value, given on by ``node``."""
        return replace(self, nodes=self.nodes | {node})


@torch.no_grad()
def merge_branches(network: nn.Module, example: Tensor | None = None) -> fx.GraphModule:
    """A copy of ``network`` in which sums of branches are one convolution each; the float function in eval mode stays.

    BatchNorms inside branches are folded, those behind a sum are left live. A sum is left as it is where other
    operators read its branches, or where the convolution would have more weights than the branches together.
    ``example``: see ``quant.tracing.trace``.
    """
    graph_module = trace(network, example)
    for node, source, merged in _merges(graph_module):
        name = _widest(graph_module, merged)
        with graph_module.graph.inserting_before(node):
            call = graph_module.graph.call_module(name, (source,))
        call.meta = dict(node.meta)
        set_module(graph_module, name, _convolution(merged, graph_module.get_submodule(name)))
        node.replace_all_uses_with(call)
        graph_module.graph.erase_node(node)
        graph_module.graph.eliminate_dead_code()
    return finish(graph_module)


def has_branches(network: nn.Module, example: Tensor | None = None) -> bool:
    """Whether ``merge_branches`` finds something to merge."""
    return bool(_merges(trace(network, example)))


def _merges(graph_module: fx.GraphModule) -> list[tuple[fx.Node, fx.Node, _Affine]]:
    """The largest sums to merge, each with the value that all its branches start from; no two overlap."""
    views: dict[fx.Node, dict[fx.Node, _Affine]] = {}
    for node in graph_module.graph.nodes:
        views[node] = _views(graph_module, node, views)
    found: list[tuple[fx.Node, fx.Node, _Affine]] = []
    taken: set[fx.Node] = set()
    for node in reversed(graph_module.graph.nodes):
        if node in taken or not (_is_sum(node) or isinstance(module_of(graph_module, node), nn.Conv2d)):
            continue
        for source, affine in views[node].items():
            if _pays(graph_module, node, affine):
                taken |= affine.nodes
                found.append((node, source, affine))
                break
    return found


def _views(
    graph_module: fx.GraphModule, node: fx.Node, views: dict[fx.Node, dict[fx.Node, _Affine]]
) -> dict[fx.Node, _Affine]:
    """The value of ``node`` as a convolution of earlier values, the earliest first."""
    module, source = module_of(graph_module, node), node.args[0] if node.args else None
    if isinstance(source, fx.Node) and isinstance(module, nn.Conv2d):
        affine = _of_convolution(module, node)
        if affine is None:
            return {}
        return {**_scaled_by(module, affine, views.get(source, {}), node), source: affine}
    if isinstance(source, fx.Node) and isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
        if not module.affine:
            return {}
        factor = bn_factor(module).double().cpu()
        shift = module.bias.double().cpu() - module.running_mean.double().cpu() * factor
        scaled = {start: view.scaled(factor, node) for start, view in _with_itself(source, views).items()}
        return {start: replace(view, bias=view.bias + shift) for start, view in scaled.items()}
    if node.op != "call_function" or len(node.args) != 2 or node.kwargs:
        return {}
    left, right = node.args
    if node.target in PRODUCTS:
        return _product(graph_module, node, views)
    value = left if right == 0 else right if left == 0 else None
    if node.target in ADDITIONS and isinstance(value, fx.Node):  # where a sum starts, or lacks a branch
        return {start: view.through(node) for start, view in _with_itself(value, views).items()}
    if not isinstance(left, fx.Node) or not isinstance(right, fx.Node):
        return {}
    if node.target in (*ADDITIONS, *_DIFFERENCES):
        ours, theirs = _with_itself(left, views), _with_itself(right, views)
        sign = -1.0 if node.target in _DIFFERENCES else 1.0
        sums = {start: _sum(view, theirs[start], sign, node) for start, view in ours.items() if start in theirs}
        return {start: total for start, total in sums.items() if total is not None}
    return {}


def _scaled_by(
    conv: nn.Conv2d, affine: _Affine, views: dict[fx.Node, _Affine], node: fx.Node
) -> dict[fx.Node, _Affine]:
    """The views of a value behind a depthwise 1x1 convolution, as a BatchNorm behind a sum has one in front of it."""
    if tuple(affine.weight.shape[1:]) != (1, 1, 1) or conv.groups != conv.in_channels or conv.stride != (1, 1):
        return {}
    if conv.out_channels != conv.in_channels:
        return {}
    factor = affine.weight.flatten()
    scaled = {start: view.scaled(factor, node) for start, view in views.items()}
    return {
        start: replace(view, bias=view.bias + affine.bias, weights=view.weights + len(factor))
        for start, view in scaled.items()
    }


def _product(
    graph_module: fx.GraphModule, node: fx.Node, views: dict[fx.Node, dict[fx.Node, _Affine]]
) -> dict[fx.Node, _Affine]:
    """A value times constants of its channels (a layer scale), Cx1x1 or 1xCx1x1."""
    for value, constant in (node.args, node.args[::-1]):
        if not (isinstance(value, fx.Node) and isinstance(constant, fx.Node) and constant.op == "get_attr"):
            continue
        owner, _, leaf = str(constant.target).rpartition(".")
        factor = getattr(graph_module.get_submodule(owner), leaf).detach().double().cpu()
        shape = value.meta.get("shape", ())
        by_channel = len(shape) == 4 and tuple(factor.shape) in ((shape[1], 1, 1), (1, shape[1], 1, 1))
        if by_channel:
            return {start: view.scaled(factor.flatten(), node) for start, view in _with_itself(value, views).items()}
    return {}


def _with_itself(node: fx.Node, views: dict[fx.Node, dict[fx.Node, _Affine]]) -> dict[fx.Node, _Affine]:
    shape = node.meta.get("shape", ())
    if len(shape) != 4:
        return views[node]
    channels = shape[1]
    ones, none = torch.ones(channels, 1, 1, 1, dtype=torch.double), torch.zeros(channels, dtype=torch.double)
    return {**views[node], node: _Affine(ones, none, channels, (1, 1), frozenset(), channels)}


def _of_convolution(conv: nn.Conv2d, node: fx.Node) -> _Affine | None:
    around = tuple((size - 1) // 2 for size in conv.kernel_size)
    odd = all(size % 2 for size in conv.kernel_size)
    if not odd or conv.padding != around or set(conv.dilation) != {1} or conv.padding_mode != "zeros":
        return None
    (down, right), weight = conv.stride, conv.weight.detach().double().cpu()
    bias = torch.zeros(len(weight), dtype=torch.double) if conv.bias is None else conv.bias.detach().double().cpu()
    return _Affine(weight, bias, conv.groups, (down, right), frozenset({node}), weight.numel())


def _sum(ours: _Affine, theirs: _Affine, sign: float, node: fx.Node) -> _Affine | None:
    """``ours + sign * theirs``, None where they are of different strides."""
    if ours.stride != theirs.stride or len(ours.bias) != len(theirs.bias):
        return None
    groups = _common_groups(ours, theirs)
    one, other = _in_groups(ours, groups), _in_groups(theirs, groups)
    size = [max(a, b) for a, b in zip(one.shape[2:], other.shape[2:], strict=True)]
    weight = _widened(one, size) + sign * _widened(other, size)
    bias = ours.bias + sign * theirs.bias
    return _Affine(weight, bias, groups, ours.stride, ours.nodes | theirs.nodes | {node}, ours.weights + theirs.weights)


def _common_groups(ours: _Affine, theirs: _Affine) -> int:
    fewer, more = sorted((ours.groups, theirs.groups))
    return fewer if more % fewer == 0 else 1


def _in_groups(affine: _Affine, groups: int) -> Tensor:
    """The same weights for fewer groups, with zeros between channels that are not connected."""
    outputs, inputs, *size = affine.weight.shape
    merged = affine.groups // groups
    weight = affine.weight.new_zeros(groups, merged, outputs // affine.groups, merged, inputs, *size)
    for index in range(merged):
        weight[:, index, :, index] = affine.weight.reshape(groups, merged, -1, inputs, *size)[:, index]
    return weight.reshape(outputs, merged * inputs, *size)


def _widened(weight: Tensor, size: list[int]) -> Tensor:
    rows, columns = ((wide - own) // 2 for wide, own in zip(size, weight.shape[2:], strict=True))
    return F.pad(weight, (columns, columns, rows, rows))


def _is_sum(node: fx.Node) -> bool:
    return node.target in (*ADDITIONS, *_DIFFERENCES)


def _pays(graph_module: fx.GraphModule, node: fx.Node, affine: _Affine) -> bool:
    sums = any(_is_sum(one) for one in affine.nodes)
    convs = any(isinstance(module_of(graph_module, one), nn.Conv2d) for one in affine.nodes)
    read_elsewhere = any(user not in affine.nodes for one in affine.nodes - {node} for user in one.users)
    return sums and convs and not read_elsewhere and affine.weight.numel() <= affine.weights


def _widest(graph_module: fx.GraphModule, affine: _Affine) -> str:
    """The name of the branches' largest convolution."""
    convs = {str(node.target): module_of(graph_module, node) for node in affine.nodes}
    sizes = {name: conv.weight.numel() for name, conv in convs.items() if isinstance(conv, nn.Conv2d)}
    return max(sorted(sizes), key=sizes.__getitem__)


def _convolution(affine: _Affine, like: nn.Module) -> nn.Conv2d:
    outputs, inputs, rows, columns = affine.weight.shape
    padding = ((rows - 1) // 2, (columns - 1) // 2)
    same = next(like.parameters())
    conv = nn.Conv2d(inputs * affine.groups, outputs, (rows, columns), affine.stride, padding, groups=affine.groups)
    conv.to(same.device, same.dtype).load_state_dict({"weight": affine.weight, "bias": affine.bias})
    conv.training = like.training
    return conv
