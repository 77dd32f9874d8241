"""ATen operators, as ``torch.export`` records them, in the names that torch.fx records."""

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

Arguments = tuple[Any, ...]

_CALLS: dict[str, Callable[..., Any]] = {
    name: getattr(F, name)
    for name in (
        *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "linear", "pad", "prelu"),
        *("relu", "relu6", "hardtanh", "silu", "hardswish", "hardsigmoid", "gelu", "leaky_relu", "mish", "softplus"),
        *("avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "max_pool1d", "max_pool2d"),
        *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "scaled_dot_product_attention"),
    )
} | {name: getattr(torch, name) for name in ("cat", "stack", "rsub")}
"""Functions that take the same arguments in the same order."""
_METHODS = {"_unsafe_view": "reshape", "_softmax": "softmax"}
_COPIES = ("alias", "clone", "detach", "lift_fresh_copy", "lift_fresh", "contiguous", "dropout", "feature_dropout")
_CONVERSIONS = ("_to_copy", "to", "type_as", "copy", "expand_as")
"""These leave a value as it is, or change its type or shape."""
_RESIZES = {"upsample_nearest2d": "nearest", "upsample_bilinear2d": "bilinear", "upsample_bicubic2d": "bicubic"}


def call(graph: fx.Graph, node: fx.Node, args: Arguments, kwargs: dict[str, Any]) -> fx.Node:
    """Add to ``graph`` what computes the same as ``node``, a call of an ATen operator, from other arguments.

    An operator without a name in torch.fx stays as it is, and is float.
    """
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    name = target._schema.name.partition("::")[2]
    if name in _COPIES or (name in _CONVERSIONS and _is_copy(node)):
        source: fx.Node = args[1] if name == "copy" else args[0]
        return source
    if name in _REWRITTEN:
        return _REWRITTEN[name](graph, node, *args, **kwargs)
    if name in _RESIZES:
        return graph.call_function(F.interpolate, args[:1], _resize(target, _RESIZES[name], args[1:], kwargs))
    if name in _CALLS:
        return graph.call_function(_CALLS[name], args, kwargs)
    method = _METHODS.get(name, name)
    of_self = target._schema.arguments[:1] and target._schema.arguments[0].name == "self"  # not so for aten.where
    if of_self and args and isinstance(args[0], fx.Node) and method[0] != "_" and hasattr(Tensor, method):
        return graph.call_method(method, args, kwargs)
    return graph.call_function(target, args, kwargs)


def _is_copy(node: fx.Node) -> bool:
    source = node.args[1 if str(node.target).startswith("aten.copy.") else 0]
    if not isinstance(source, fx.Node):
        return False
    given, made = source.meta["val"], node.meta["val"]
    return bool(given.shape == made.shape and given.dtype == made.dtype)


def _resize(target: torch._ops.OpOverload, mode: str, args: Arguments, kwargs: dict[str, Any]) -> dict[str, Any]:
    given = dict(zip([argument.name for argument in target._schema.arguments[1:]], args, strict=False)) | kwargs
    options: dict[str, Any] = {"mode": mode}
    if factors := given.get("scale_factors"):
        options["scale_factor"] = tuple(factors)
    else:
        options["size"] = tuple(given.get("output_size") or ())
    if mode != "nearest":
        options["align_corners"] = given["align_corners"]
    return options


def _slice(
    graph: fx.Graph, node: fx.Node, x: fx.Node, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> fx.Node:
    first, last, step = slice(start, end, step).indices(x.meta["shape"][dim])
    return _part(graph, x, dim % len(x.meta["shape"]), first, max(first, last), step)


def _select(graph: fx.Graph, node: fx.Node, x: fx.Node, dim: int, index: int) -> fx.Node:
    dims = len(x.meta["shape"])
    return graph.call_function(operator.getitem, (x, (*[slice(None)] * (dim % dims), index)))


def _slice_scatter(
    graph: fx.Graph,
    node: fx.Node,
    x: fx.Node,
    source: fx.Node,
    dim: int = 0,
    start: Any = None,
    end: Any = None,
    step: int = 1,
) -> fx.Node:
    """What is written into part of a value, between what was in front and behind."""
    size, dim = x.meta["shape"][dim], dim % len(x.meta["shape"])
    first, last, step = slice(start, end, step).indices(size)
    if step != 1:
        return graph.call_function(torch.slice_scatter, (x, source, dim, start, end, step))
    front = [_part(graph, x, dim, 0, first)] if first > 0 else []
    behind = [_part(graph, x, dim, last, size)] if last < size else []
    return graph.call_function(torch.cat, ([*front, source, *behind], dim)) if front or behind else source


def _index(graph: fx.Graph, node: fx.Node, x: fx.Node, indices: Any) -> fx.Node:
    where = tuple(slice(None) if index is None else index for index in indices)
    return graph.call_function(operator.getitem, (x, where))


def _part(graph: fx.Graph, x: fx.Node, dim: int, first: int, last: int, step: int = 1) -> fx.Node:
    """The slice of a value; where that is one of the values that it was joined from, this one."""
    shape = list(x.meta["shape"])
    if (first, last, step) == (0, shape[dim], 1):
        return x
    if x.target is torch.cat and x.args[1] == dim and step == 1:
        start = 0
        for piece in x.args[0]:  # type: ignore[union-attr]
            width = piece.meta["shape"][dim]  # type: ignore[union-attr]
            if start <= first and last <= start + width:
                return _part(graph, piece, dim, first - start, last - start)  # type: ignore[arg-type]
            start += width
    limits = slice(first or None, None if last == shape[dim] else last, None if step == 1 else step)
    part = graph.call_function(operator.getitem, (x, (*[slice(None)] * dim, limits)))
    shape[dim] = len(range(first, last, step))
    part.meta.update(shape=tuple(shape), dtype=x.meta["dtype"])
    return part


def _zeros(graph: fx.Graph, node: fx.Node, *args: Any, **kwargs: Any) -> fx.Node:
    """Zeros in place of memory that is not set, from which ranges cannot be learned."""
    overload = str(node.target).split(".")[1].replace("empty", "zeros")
    target = getattr(torch.ops.aten, overload).default
    return graph.call_function(target, args, {key: value for key, value in kwargs.items() if key != "memory_format"})


def _batch_norm(
    graph: fx.Graph, node: fx.Node, x: fx.Node, weight: Any, bias: Any, mean: Any, var: Any, momentum: float, eps: float
) -> fx.Node:
    return graph.call_function(F.batch_norm, (x, mean, var, weight, bias, False, momentum, eps))


def _instance_norm(
    graph: fx.Graph, node: fx.Node, x: fx.Node, weight: Any, bias: Any, mean: Any, var: Any, *rest: Any
) -> fx.Node:
    return graph.call_function(F.instance_norm, (x, mean, var, weight, bias, *rest[:3]))


def _convolution(
    graph: fx.Graph,
    node: fx.Node,
    x: fx.Node,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> fx.Node:
    if transposed:
        kinds: Any = {3: F.conv_transpose1d, 4: F.conv_transpose2d}
        args: Arguments = (x, weight, bias, stride, padding, output_padding, groups, dilation)
    else:
        kinds, args = {3: F.conv1d, 4: F.conv2d}, (x, weight, bias, stride, padding, dilation, groups)
    return graph.call_function(kinds[len(x.meta["shape"])], args)


def _elu(graph: fx.Graph, node: fx.Node, x: fx.Node, *factors: float) -> fx.Node:
    plain = len(factors) < 2
    return graph.call_function(F.elu if plain else torch.ops.aten.elu.default, (x, *factors))


def _norm(function: Callable[..., Any]) -> Callable[..., fx.Node]:
    """Whether cuDNN may be used is left out."""
    return lambda graph, node, *args: graph.call_function(function, args[:5])


_REWRITTEN: dict[str, Callable[..., fx.Node]] = {
    "slice": _slice,
    "select": _select,
    "index": _index,
    "slice_scatter": _slice_scatter,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "batch_norm": lambda graph, node, x, weight, bias, mean, var, training, momentum, eps, cudnn: graph.call_function(
        F.batch_norm, (x, mean, var, weight, bias, training, momentum, eps)
    ),
    "instance_norm": _instance_norm,
    "layer_norm": _norm(F.layer_norm),
    "group_norm": _norm(F.group_norm),
    "convolution": _convolution,
    "elu": _elu,
    **dict.fromkeys(("new_empty", "empty_like", "empty"), _zeros),
    "constant_pad_nd": lambda graph, node, x, pad, value=0: graph.call_function(F.pad, (x, pad, "constant", value)),
}
