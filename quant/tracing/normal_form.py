"""One way to write each operator: modules in place of functions, and linear layers as 1x1 convolutions.

A linear layer is a 1x1 convolution over an image of one pixel, whose rows are the batch. Written as one, all techniques
for convolutions hold for it, and it runs in the same int8 kernels. Elementwise operators between two linear layers work
on that image too.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from quant.graph import finish, module_of, set_module
from quant.tracing.lone_batch_norm import give_convolutions_
from quant.tracing.transposed import unfold_transposed_

_ELEMENTWISE = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.GELU, nn.LeakyReLU, nn.Tanh)
_RELU = (F.relu, torch.relu, F.relu_, torch.relu_, "relu", "relu_")
_SIGMOID = (torch.sigmoid, F.sigmoid, "sigmoid", "sigmoid_")
_ACTIVATIONS: dict[Any, Callable[..., nn.Module]] = {
    **dict.fromkeys(_RELU, lambda inplace=False: nn.ReLU()),
    **dict.fromkeys(_SIGMOID, nn.Sigmoid),
    F.relu6: lambda inplace=False: nn.ReLU6(),
    F.silu: lambda inplace=False: nn.SiLU(),
    F.hardswish: lambda inplace=False: nn.Hardswish(),
    F.hardsigmoid: lambda inplace=False: nn.Hardsigmoid(),
    F.gelu: nn.GELU,
}
_DROPOUTS = (F.dropout, F.dropout2d, F.alpha_dropout)
_SAME = tuple(("call_method", name) for name in ("to", "float", "clone", "detach", "contiguous"))
"""What leaves the values of a float32 tensor as they are."""


def normalize(graph_module: fx.GraphModule) -> fx.GraphModule:
    """Bring a graph that knows its shapes (``trace_with_sizes``) into normal form, in place."""
    _drop_what_does_nothing_(graph_module)
    _make_activations_modules_(graph_module)
    unfold_transposed_(graph_module)
    give_convolutions_(graph_module)
    _make_linears_convolutions_(graph_module)
    graph_module.graph.eliminate_dead_code()
    return finish(graph_module)


def _drop_what_does_nothing_(graph_module: fx.GraphModule) -> None:
    """Dropout, changes of type or place, and averages over one pixel, of which the stride is left."""
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
        elif node.target not in _DROPOUTS and (node.op, node.target) not in _SAME:
            if node.op == "call_method" and node.target == "view":  # what stood in front may have been made contiguous
                node.target = "reshape"
            continue
        node.replace_all_uses_with(kept)
        graph.erase_node(node)


def _make_activations_modules_(graph_module: fx.GraphModule) -> None:
    graph = graph_module.graph
    for node in list(graph.nodes):
        if node.op in ("call_function", "call_method") and node.target in _ACTIVATIONS:
            name = f"{node.name}_module"
            graph_module.add_module(name, _ACTIVATIONS[node.target](*node.args[1:], **node.kwargs))
            with graph.inserting_before(node):
                call = graph.call_module(name, (node.args[0],))
            call.meta = dict(node.meta)
            node.replace_all_uses_with(call)
            graph.erase_node(node)


def _make_linears_convolutions_(graph_module: fx.GraphModule) -> None:
    graph = graph_module.graph
    images: dict[fx.Node, fx.Node] = {}
    """Of a value (..., C) the same as rows x C x 1 x 1."""
    for node in list(graph.nodes):
        module, shape = module_of(graph_module, node), node.meta.get("shape")
        if shape is None or node.op not in ("call_module", "call_function", "call_method"):
            continue
        source = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
        if source is None:
            continue
        if _is_flatten(module, node) and source.meta["shape"][2:] == (1, 1) and len(shape) == 2:
            images[node] = source
        elif isinstance(module, nn.Linear):
            set_module(graph_module, str(node.target), _as_convolution(module))
            _on_image(graph, node, _image(graph, node, source, images), images)
        elif isinstance(module, _ELEMENTWISE) and source in images:
            _on_image(graph, node, images[source], images)


def _is_flatten(module: nn.Module | None, node: fx.Node) -> bool:
    return isinstance(module, nn.Flatten) or node.target in (torch.flatten, "flatten", "view", "reshape", torch.reshape)


def _image(graph: fx.Graph, node: fx.Node, source: fx.Node, images: dict[fx.Node, fx.Node]) -> fx.Node:
    if source not in images:
        *rows, channels = source.meta["shape"]
        with graph.inserting_before(node):
            image = graph.call_method("reshape", (source, -1, channels, 1, 1))
        image.meta["shape"] = (torch.Size(rows).numel(), channels, 1, 1)
        images[source] = image
    return images[source]


def _on_image(graph: fx.Graph, node: fx.Node, image: fx.Node, images: dict[fx.Node, fx.Node]) -> None:
    """Let ``node`` work on ``image``, and give its readers the shape that they know."""
    shape = node.meta["shape"]
    node.args = (image, *node.args[1:])
    node.meta["shape"] = (*image.meta["shape"][:1], shape[-1], 1, 1)
    with graph.inserting_after(node):
        value = graph.call_method("reshape", (node, -1, *shape[1:]))
    value.meta["shape"] = shape
    node.replace_all_uses_with(value, delete_user_cb=lambda user: user is not value)
    images[value] = node


def _as_convolution(linear: nn.Linear) -> nn.Conv2d:
    weight = linear.weight.detach()
    conv = nn.Conv2d(linear.in_features, linear.out_features, 1, bias=linear.bias is not None)
    conv.weight = nn.Parameter(weight.reshape(*weight.shape, 1, 1))
    conv.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach())
    conv.training = linear.training
    return conv
