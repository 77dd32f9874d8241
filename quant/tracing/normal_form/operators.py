"""One name for each operator that has several: functions, methods and symbols."""

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx

_NAMES: dict[Callable[..., Any], tuple[Any, ...]] = {
    operator.add: (torch.add, "add", "__add__", "__radd__"),
    operator.mul: (torch.mul, torch.multiply, "mul", "multiply", "__mul__", "__rmul__"),
    operator.sub: (torch.sub, torch.subtract, "sub", "subtract", "__sub__"),
    operator.truediv: (torch.div, torch.true_divide, torch.divide, "div", "divide", "true_divide", "__truediv__"),
    torch.matmul: (operator.matmul, torch.bmm, "matmul", "bmm", "mm", torch.mm, "__matmul__"),
    torch.softmax: (F.softmax, "softmax"),
    torch.cat: (torch.concat, torch.concatenate),
}
_SPELLINGS = {spelling: name for name, spellings in _NAMES.items() for spelling in spellings}
_OF_INTEGERS = {operator.add: torch.ops.aten.add.Tensor, operator.mul: torch.ops.aten.mul.Tensor}
"""Sums and products of indices and masks go by a name that no int8 kernel is found for."""
_SCALED = (operator.add, operator.sub)


def name_operators_(graph_module: fx.GraphModule) -> None:
    """Call each operator by one name, and means over the picture average pooling. The graph knows its shapes."""
    for node in list(graph_module.graph.nodes):
        if node.op not in ("call_function", "call_method"):
            continue
        if not getattr(node.meta.get("dtype"), "is_floating_point", True):
            node.target = _OF_INTEGERS.get(_SPELLINGS.get(node.target, node.target), node.target)
            node.op = "call_function" if callable(node.target) else node.op
        elif (name := _SPELLINGS.get(node.target)) is not None and _has_name(node, name):
            _scale_(node) if name in _SCALED else None
            node.op, node.target = "call_function", name
            if name is torch.softmax:
                node.kwargs = {key: value for key, value in node.kwargs.items() if key != "_stacklevel"}
            elif "other" in node.kwargs:
                node.args, node.kwargs = (*node.args, node.kwargs["other"]), {}
        elif node.target in (torch.mean, "mean"):
            _make_mean_pooling_(node)


def _has_name(node: fx.Node, name: Any) -> bool:
    """Whether the arguments are those that the operator has under any name."""
    allowed = {torch.softmax: {"dim", "_stacklevel"}, torch.cat: {"dim", "tensors"}}.get(name, {"other", "alpha"})
    return all(key in allowed or (key == "dtype" and value is None) for key, value in node.kwargs.items())


def _scale_(node: fx.Node) -> None:
    """``x + alpha * y``."""
    alpha = node.kwargs.get("alpha", 1)
    x, y = (*node.args, node.kwargs.get("other"))[:2]
    if alpha != 1 and isinstance(y, fx.Node):
        with node.graph.inserting_before(node):
            scaled = node.graph.call_function(operator.mul, (y, alpha))
        scaled.meta = dict(y.meta)
        y = scaled
    elif alpha != 1:
        y = y * alpha  # type: ignore[operator]
    node.args, node.kwargs = (x, y), {}


def _make_mean_pooling_(node: fx.Node) -> None:
    given = dict(zip(("dim", "keepdim"), node.args[1:], strict=False)) | dict(node.kwargs)
    source: Any = node.args[0]
    dims: Any = given.get("dim", given.get("axis"))
    shape = source.meta.get("shape", ())
    if (
        len(shape) != 4
        or not isinstance(dims, tuple | list)
        or {dim % 4 for dim in dims} != {2, 3}
        or given.get("dtype")
    ):
        return
    graph = node.graph
    with graph.inserting_before(node):
        pooled = value = graph.call_function(F.adaptive_avg_pool2d, (source, 1))
        pooled.meta = {**node.meta, "shape": (*shape[:2], 1, 1)}
        if not given.get("keepdim", False):
            value = graph.call_function(torch.flatten, (pooled, 1))
            value.meta = dict(node.meta)
    node.replace_all_uses_with(value)
    graph.erase_node(node)
