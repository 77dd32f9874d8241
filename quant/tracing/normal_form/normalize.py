"""One way to write each operator: modules in place of functions, one for each call, and all convolutions in 2D.

A linear layer is a 1x1 convolution over an image of one pixel, whose rows are the batch, and a convolution over a line
one over an image of one row. Written as such, all techniques for convolutions hold for them, and they run in the same
int8 kernels. BatchNorm and elementwise operators behind them work on that image too.
"""

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from quant.graph import argument, finish, module_of, set_module
from quant.tracing.normal_form.constants import evaluate_constants_
from quant.tracing.normal_form.in_place import make_out_of_place_
from quant.tracing.normal_form.lone_batch_norm import give_convolutions_
from quant.tracing.normal_form.modules import make_modules_
from quant.tracing.normal_form.operators import name_operators_
from quant.tracing.normal_form.paddings import keep_divisors_, make_paddings_numbers_
from quant.tracing.normal_form.separate import separate_calls_
from quant.tracing.normal_form.transposed import unfold_transposed_

_ELEMENTWISE = (
    *(nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.GELU, nn.LeakyReLU, nn.Tanh, nn.ELU),
    *(nn.Mish, nn.Softplus, nn.Hardtanh),
)
_DROPOUTS = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout)
_SAME = tuple(("call_method", name) for name in ("to", "float", "clone", "detach", "contiguous", "type_as"))
"""What leaves the values of a float32 tensor as they are."""


def normalize(graph_module: fx.GraphModule) -> fx.GraphModule:
    """Bring a graph that knows its shapes (``trace_with_sizes``, ``trace_exported``) into normal form, in place.

    Raises UnsupportedNetworkError where it cannot: see ``make_out_of_place_``.
    """
    make_out_of_place_(graph_module)
    _drop_what_does_nothing_(graph_module)
    name_operators_(graph_module)
    evaluate_constants_(graph_module)
    make_modules_(graph_module)
    separate_calls_(graph_module)
    unfold_transposed_(graph_module)
    _make_linears_convolutions_(graph_module)
    give_convolutions_(graph_module)
    make_paddings_numbers_(graph_module)
    keep_divisors_(graph_module)
    graph_module.graph.eliminate_dead_code()
    _forget_unread_(graph_module)
    return finish(graph_module)


def _drop_what_does_nothing_(graph_module: fx.GraphModule) -> None:
    """Dropout, pads of no width, changes of type or place, averages over one pixel (of which the stride is left)."""
    graph = graph_module.graph
    for node in list(graph.nodes):
        module, kept = module_of(graph_module, node), node.args[0] if node.args else None
        if isinstance(module, nn.AvgPool2d) and module.kernel_size in (1, (1, 1)):
            rows, columns = module.stride if isinstance(module.stride, tuple) else (module.stride, module.stride)
            if (rows, columns) != (1, 1):
                where = (slice(None), slice(None), slice(None, None, rows), slice(None, None, columns))
                with graph.inserting_before(node):
                    kept = graph.call_function(operator.getitem, (kept, where))
                kept.meta = dict(node.meta)
        elif node.target not in _DROPOUTS and not _is_copy(node) and not _is_empty_pad(node):
            if node.op == "call_method" and node.target == "view":  # what stood in front may have been made contiguous
                node.target = "reshape"
            continue
        node.replace_all_uses_with(kept)
        graph.erase_node(node)


def _is_copy(node: fx.Node) -> bool:
    source = node.args[0] if node.args else None
    if (node.op, node.target) not in _SAME or not isinstance(source, fx.Node):
        return False
    return bool(source.meta.get("dtype") == node.meta.get("dtype"))


def _is_empty_pad(node: fx.Node) -> bool:
    if node.target is not F.pad:
        return False
    widths = argument(node, 1, "pad")
    return isinstance(widths, tuple | list) and all(isinstance(width, int) and width == 0 for width in widths)


def _make_linears_convolutions_(graph_module: fx.GraphModule) -> None:
    graph = graph_module.graph
    images: dict[fx.Node, fx.Node] = {}
    """Of a value (..., C) the same as rows x C x 1 x 1."""
    lines: dict[fx.Node, fx.Node] = {}
    """Of a value (N, C, L) the same as N x C x 1 x L."""
    for node in list(graph.nodes):
        module, shape = module_of(graph_module, node), node.meta.get("shape")
        if shape is None or node.op not in ("call_module", "call_function", "call_method"):
            continue
        source = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
        if source is None:
            continue
        known, form = images if source in images else lines, module
        if _is_flatten(module, node) and source.meta["shape"][2:] == (1, 1) and len(shape) == 2:
            images[node] = source
            continue
        if isinstance(module, nn.Linear):
            known, form = images, _as_convolution(module)
            _image(graph, node, source, images)
        elif isinstance(module, nn.Conv1d) and module.padding_mode == "zeros" and _is_line(node):
            known, form = lines, _as_convolution(module)
            _line(graph, node, source, lines)
        elif isinstance(module, nn.BatchNorm1d) and source in known and len(shape) == (2 if known is images else 3):
            form = _as_2d(module)
        elif isinstance(module, _ELEMENTWISE) and source in known:
            pass
        else:
            continue
        if form is not None and form is not module:
            set_module(graph_module, str(node.target), form)
        rows, channels, width = shape[0], shape[1], shape[-1]
        in_2d = (rows, channels, 1, width) if known is lines else (torch.Size(shape[:-1]).numel(), width, 1, 1)
        _on_image(graph, node, known[source], in_2d)
        known[next(iter(node.users))] = node


def _is_flatten(module: nn.Module | None, node: fx.Node) -> bool:
    return isinstance(module, nn.Flatten) or node.target in (torch.flatten, "flatten", "view", "reshape", torch.reshape)


def _is_line(node: fx.Node) -> bool:
    """Whether a value is N x C x L, with the batch where it belongs."""
    return len(node.meta["shape"]) == 3 and node.meta.get("free", (0,)) == (0,)


def _image(graph: fx.Graph, node: fx.Node, source: fx.Node, images: dict[fx.Node, fx.Node]) -> None:
    if source not in images:
        *rows, channels = source.meta["shape"]
        with graph.inserting_before(node):
            images[source] = graph.call_method("reshape", (source, -1, channels, 1, 1))
        images[source].meta = {**source.meta, "shape": (torch.Size(rows).numel(), channels, 1, 1)}


def _line(graph: fx.Graph, node: fx.Node, source: fx.Node, lines: dict[fx.Node, fx.Node]) -> None:
    if source not in lines:
        count, channels, length = source.meta["shape"]
        with graph.inserting_before(node):
            lines[source] = graph.call_method("reshape", (source, -1, channels, 1, length))
        lines[source].meta = {**source.meta, "shape": (count, channels, 1, length)}


def _on_image(graph: fx.Graph, node: fx.Node, image: fx.Node, in_2d: tuple[int, ...]) -> None:
    """Let ``node`` work on ``image``, and give its readers the shape that they know."""
    shape = node.meta["shape"]
    node.args = (image, *node.args[1:])
    free = node.meta.get("free", (0,))
    with graph.inserting_after(node):
        value = graph.call_method("reshape", (node, *(-1 if dim in free else size for dim, size in enumerate(shape))))
    value.meta = dict(node.meta)
    node.meta = {**node.meta, "shape": in_2d, "free": (0,)}
    node.replace_all_uses_with(value, delete_user_cb=lambda user: user is not value)


def _as_convolution(source: nn.Linear | nn.Conv1d) -> nn.Conv2d:
    """A convolution whose kernel has one row."""
    out, inputs, *width = source.weight.shape
    if isinstance(source, nn.Conv1d):
        stride, dilation, groups = source.stride[0], source.dilation[0], source.groups
        padding: str | tuple[int, int] = source.padding if isinstance(source.padding, str) else (0, source.padding[0])
        options: dict[str, Any] = {
            "stride": (1, stride),
            "padding": padding,
            "dilation": (1, dilation),
            "groups": groups,
        }
    else:
        options = {}
    with torch.device("meta"):
        size = (1, width[0] if width else 1)
        conv = nn.Conv2d(inputs * options.get("groups", 1), out, size, bias=source.bias is not None, **options)
    weight = source.weight.detach().reshape(*conv.weight.shape)
    conv.weight = nn.Parameter(weight, source.weight.requires_grad)
    conv.bias = None if source.bias is None else nn.Parameter(source.bias.detach(), source.bias.requires_grad)
    return conv.train(source.training)


def _as_2d(norm: nn.BatchNorm1d) -> nn.BatchNorm2d:
    norm_2d = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    norm_2d._parameters.update(norm._parameters)
    norm_2d._buffers.update(norm._buffers)
    return norm_2d.train(norm.training)


def _forget_unread_(graph_module: fx.GraphModule) -> None:
    """Delete parameters and buffers that only values computed once were read from."""
    read = {str(node.target) for node in graph_module.graph.nodes if node.op == "get_attr"}
    called = {str(node.target) for node in graph_module.graph.nodes if node.op == "call_module"}
    for owner, module in graph_module.named_modules():
        parts = owner.split(".")
        if called & {".".join(parts[: count + 1]) for count in range(len(parts))}:
            continue
        for kept in (module._parameters, module._buffers):
            for leaf in list(kept):
                if f"{owner}.{leaf}".lstrip(".") not in read:
                    del kept[leaf]
