"""Modules in place of functions: their weights are the parameters that the function reads."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from quant.graph import set_module
from quant.tracing.normal_form.constants import attribute, free_name

Made = nn.Module | None


def make_modules_(graph_module: fx.GraphModule) -> None:
    """Call a module in place of every function, or method, that has one.

    A module with weights is where its weight was: ``F.conv2d(x, head.proj.weight)`` calls ``head.proj``. Where this
    place is taken, or the weight has a name of its own, it is beside: ``head.kernel`` gives ``head.kernel_conv2d``. A
    function whose weights depend on the picture stays as it is. The graph knows its shapes.
    """
    for node in list(graph_module.graph.nodes):
        build = _MODULES.get(node.target) if node.op in ("call_function", "call_method") else None
        if build is None or not node.args or "shape" not in getattr(node.args[0], "meta", ()):
            continue
        module = _built(graph_module, node, build)
        if module is not None:
            name = _place(graph_module, node, module)
            set_module(graph_module, name, module.train(graph_module.training))
            replace_(graph_module, node, name)


def replace_(graph_module: fx.GraphModule, node: fx.Node, name: str) -> None:
    """Call the module of that name in place of the node, with its first argument."""
    inputs = node.all_input_nodes
    with graph_module.graph.inserting_before(node):
        call = graph_module.graph.call_module(name, (node.args[0],))
    call.meta = dict(node.meta)
    node.replace_all_uses_with(call)
    for unread in (node, *inputs):
        if not unread.users and unread.op != "placeholder":
            graph_module.graph.erase_node(unread)


def _built(graph_module: fx.GraphModule, node: fx.Node, build: Callable[..., Made]) -> Made:
    """The module; None where another argument than the first depends on the picture."""
    sources = node.all_input_nodes[1:] if node.args[0] is node.all_input_nodes[0] else node.all_input_nodes
    if node.args[0] in sources or any(source.op != "get_attr" for source in sources):
        return None
    args, kwargs = fx.map_arg((node.args[1:], node.kwargs), lambda source: attribute(graph_module, str(source.target)))
    if build in _BY_DIMENSIONS:
        kwargs = {"dims": len(node.args[0].meta["shape"]), **kwargs}  # type: ignore[union-attr]
    return build(*args, **kwargs)


def _place(graph_module: fx.GraphModule, node: fx.Node, module: nn.Module) -> str:
    weights = [source for source in node.all_input_nodes if source.op == "get_attr"]
    if not weights:
        return free_name(graph_module, f"{node.name}_module")
    name = str(weights[0].meta.get("source", weights[0].target))
    owner, _, leaf = name.rpartition(".")
    if leaf.endswith("_weight"):  # such as in_proj_weight
        return free_name(graph_module, name.removesuffix("_weight"))
    if not owner or leaf not in ("weight", "running_mean"):
        return free_name(graph_module, f"{name}_{getattr(node.target, '__name__', node.target)}")
    return owner if _is_free(graph_module, node, owner, module) else free_name(graph_module, owner)


def _is_free(graph_module: fx.GraphModule, node: fx.Node, owner: str, module: nn.Module) -> bool:
    """Whether the node is the only reader of what is there, or the module has it too."""
    for other in graph_module.graph.nodes:
        if other.op not in ("call_module", "get_attr") or not f"{other.target}.".startswith(f"{owner}."):
            continue
        kept = getattr(module, str(other.target)[len(owner) + 1 :], None) if other.op == "get_attr" else None
        if not set(other.users) <= {node} and (kept is None or kept is not attribute(graph_module, str(other.target))):
            return False
    return True


def _parameter(value: Tensor) -> nn.Parameter:
    return value if isinstance(value, nn.Parameter) else nn.Parameter(value, requires_grad=False)


def _with(module: nn.Module, **values: Tensor | None) -> nn.Module:
    """The module with these tensors, an absent one where it is None."""
    for name, value in values.items():
        if name in module._buffers:
            module.register_buffer(name, value)
        else:
            module.register_parameter(name, None if value is None else _parameter(value))
    return module


def _convolution(kind: Any) -> Callable[..., Made]:
    def build(
        weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
    ) -> Made:
        out, inputs, *size = weight.shape
        padding = tuple(padding) if isinstance(padding, list) else padding
        with torch.device("meta"):
            conv = kind(inputs * groups, out, size, stride, padding, dilation, groups, bias is not None)
        return _with(conv, weight=weight, bias=bias)

    return build


def _transposed(kind: Any) -> Callable[..., Made]:
    def build(
        weight: Tensor,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Made:
        inputs, out, *size = weight.shape
        options = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation}
        with torch.device("meta"):
            conv = kind(inputs, out * groups, size, groups=groups, bias=bias is not None, **options)
        return _with(conv, weight=weight, bias=bias)

    return build


def _linear(weight: Tensor, bias: Tensor | None = None) -> Made:
    if weight.dim() != 2:
        return None
    with torch.device("meta"):
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    return _with(linear, weight=weight, bias=bias)


def _product(weight: Tensor) -> Made:
    if weight.dim() != 2:
        return None
    return _linear(nn.Parameter(weight.detach().t().contiguous(), weight.requires_grad))


def _batch_norm(
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    dims: int,
) -> Made:
    if training or running_mean is None:
        return None
    kind = nn.BatchNorm2d if dims == 4 else nn.BatchNorm3d if dims == 5 else nn.BatchNorm1d
    norm = kind(len(running_mean), eps, momentum)
    weight = torch.ones_like(running_mean) if weight is None else weight
    bias = torch.zeros_like(running_mean) if bias is None else bias
    return _with(norm, weight=weight, bias=bias, running_mean=running_mean, running_var=running_var)


def _layer_norm(shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Made:
    return _with(nn.LayerNorm(tuple(shape), eps), weight=weight, bias=bias)


def _group_norm(groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Made:
    if weight is None or bias is None:
        return None  # the number of channels is not known
    return _with(nn.GroupNorm(groups, len(weight), eps), weight=weight, bias=bias)


def _prelu(weight: Tensor) -> Made:
    return _with(nn.PReLU(weight.numel()), weight=weight)


def _average_pool(
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Made:
    return nn.AvgPool2d(kernel_size, stride or None, padding, ceil_mode, count_include_pad, divisor_override)


def _max_pool(
    kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False, **options: Any
) -> Made:
    indices = options.get("return_indices", False)
    return None if indices else nn.MaxPool2d(kernel_size, stride or None, padding, dilation, False, ceil_mode)


def _pad(pad: Any, mode: str = "constant", value: float | None = 0.0, *, dims: int) -> Made:
    if len(pad) > 4 or dims != 4 or min(pad) < 0 or value:
        return None
    return PADS[mode]((*pad, 0, 0)[:4])


def _clamp(min: Any = None, max: Any = None) -> Made:
    if min != 0 or isinstance(min, Tensor):
        return None
    return nn.ReLU() if max is None else nn.ReLU6() if max == 6 else None


def _hardtanh(min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Made:
    return nn.ReLU6() if (min_val, max_val) == (0.0, 6.0) else nn.Hardtanh(min_val, max_val)


def _activation(kind: type[nn.Module]) -> Callable[..., Made]:
    def build(*values: Any, inplace: bool = False, **options: Any) -> Made:
        numbers = [value for value in values if not isinstance(value, bool)]  # the last may say in place
        return kind(*numbers, **options)

    return build


PADS: dict[str, Callable[..., nn.Module]] = {
    "constant": nn.ZeroPad2d,
    "zeros": nn.ZeroPad2d,
    "reflect": nn.ReflectionPad2d,
    "replicate": nn.ReplicationPad2d,
    "circular": nn.CircularPad2d,
}
_RELU = (F.relu, torch.relu, "relu")
_SIGMOID = (torch.sigmoid, F.sigmoid, "sigmoid")
_TANH = (torch.tanh, F.tanh, "tanh")
_MODULES: dict[Any, Callable[..., Made]] = {
    F.conv1d: _convolution(nn.Conv1d),
    F.conv2d: _convolution(nn.Conv2d),
    F.conv3d: _convolution(nn.Conv3d),
    F.conv_transpose1d: _transposed(nn.ConvTranspose1d),
    F.conv_transpose2d: _transposed(nn.ConvTranspose2d),
    F.linear: _linear,
    torch.matmul: _product,
    F.batch_norm: _batch_norm,
    F.layer_norm: _layer_norm,
    F.group_norm: _group_norm,
    **dict.fromkeys((F.prelu, torch.prelu), _prelu),
    F.avg_pool2d: _average_pool,
    **dict.fromkeys((F.max_pool2d, torch.max_pool2d), _max_pool),
    F.pad: _pad,
    **dict.fromkeys((torch.clamp, torch.clip, torch.clamp_min, "clamp", "clip", "clamp_min"), _clamp),
    F.hardtanh: _hardtanh,
    **dict.fromkeys(_RELU, _activation(nn.ReLU)),
    **dict.fromkeys(_SIGMOID, _activation(nn.Sigmoid)),
    **dict.fromkeys(_TANH, _activation(nn.Tanh)),
    F.relu6: _activation(nn.ReLU6),
    F.silu: _activation(nn.SiLU),
    F.hardswish: _activation(nn.Hardswish),
    F.hardsigmoid: _activation(nn.Hardsigmoid),
    F.gelu: _activation(nn.GELU),
    F.leaky_relu: _activation(nn.LeakyReLU),
    F.elu: _activation(nn.ELU),
    F.mish: _activation(nn.Mish),
    F.softplus: _activation(nn.Softplus),
}
_BY_DIMENSIONS = (_batch_norm, _pad)
