"""The int8 network on PyTorch's quantized kernels (QNNPACK, and its kin on x86).

PyTorch has deprecated this engine, and ``torch.ao.nn``, whose convolutions it is made of (``quant.engines.saturation``,
imported when one is made). Everything else stands on our own quantizers, so that another engine is another file here.
"""

import copy
import hashlib
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor, fx, nn

from quant.engines.float_sums import sums_without_kernel
from quant.fake_quantize import FakeQuantize
from quant.graph import (
    ADDITIONS,
    PRODUCTS,
    SPLITS,
    argument,
    constants,
    finish,
    joined,
    keeps_quantization,
    module_of,
    set_module,
)
from quant.prepare import QuantConv, float_conv, quant_convs, quantizers, wide
from quant.scaled_silu import ScaledSiLU
from quant.straight_through import rounded

if TYPE_CHECKING:
    from torch.ao.nn.quantized import Conv2d

ENGINE = "qnnpack"
_QUANTIZED_OPERATORS = ((ADDITIONS, "add"), (PRODUCTS, "mul"))


class _Values:
    """For every value of the prepared graph its int8 and its float form, each added when it is first needed."""

    def __init__(self, graph_module: fx.GraphModule, float_sums: list[str]) -> None:
        self.graph_module = graph_module
        self.float_sums = float_sums
        self.int8: dict[fx.Node, fx.Node] = {}
        self.float: dict[fx.Node, fx.Node] = {}

    def as_float(self, value: fx.Node) -> fx.Node:
        """The float form; a dequantize is added where only int8 exists."""
        if value not in self.float and value.target in SPLITS:
            self.float[value] = self.graph_module.graph.node_copy(value, self.as_float)
        elif value not in self.float:
            source = self.int8[value]
            with self.graph_module.graph.inserting_after(source):
                self.float[value] = self.graph_module.graph.call_method("dequantize", (source,))
        return self.float[value]


def convert(prepared: fx.GraphModule, engine: str = ENGINE) -> fx.GraphModule:
    """The int8 network of a prepared network whose quantizers hold their ranges; the argument is not changed.

    A value whose quantizer is off stays float, and so does the operator that needs it (mixed precision). One of more
    than 8 bits is rounded in float: it is simulated, as no kernels here have it.
    Takes and returns float tensors of the shapes of ``prepared``. Weights are packed for ``engine`` (qnnpack, x86 or
    onednn), which is selected for the process: see ``use_engine_``.
    """
    use_engine_(engine)
    graph_module = copy.deepcopy(prepared)
    graph_module.graph = graph = fx.Graph()
    float_sums = sums_without_kernel(prepared)
    values = _Values(graph_module, float_sums)
    constant = constants(prepared)
    for node in prepared.graph.nodes:
        module = module_of(prepared, node)
        if isinstance(module, FakeQuantize):
            _convert_quantized(prepared, graph_module, node, module, values)
        elif node.op == "output":
            graph.output(fx.map_arg(node.args[0], values.as_float))
        elif node.op == "placeholder":
            values.float[node] = graph.node_copy(node)
        elif node in constant:
            values.float[node] = graph.node_copy(node, values.as_float)
        elif node.target in SPLITS:
            if node.args[0] in values.int8:
                values.int8[node] = graph.node_copy(node, lambda arg: values.int8[arg])
        elif not _has_quantizer(prepared, node):
            values.float[node] = _float_operator(graph_module, node, values)
    graph_module = finish(graph_module)
    graph_module.eval()
    # What the structure depends on, kept so that it can be rebuilt.
    graph_module.meta["float_sums"] = float_sums
    graph_module.meta["activation_bits"] = wide(quantizers(prepared))
    graph_module.meta["modes"] = {name: quantizer.mode for name, quantizer in quantizers(prepared).items()}
    graph_module.meta["weight_bits"] = {
        name: conv.weight_quantizer.bits for name, conv in quant_convs(prepared).items()
    }
    return graph_module


class SimulatedRounding(nn.Module):
    """The rounding of an activation of more than 8 bits, in float."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, quantizer: FakeQuantize) -> None:
        super().__init__()
        self.limits = quantizer.quant_min, quantizer.quant_max
        for name in ("scale", "zero_point"):
            self.register_buffer(name, getattr(quantizer, name).detach().cpu().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape, to the same."""
        return rounded(x, self.scale, self.zero_point, self.limits)

    def extra_repr(self) -> str:
        """All that is not in the state dict."""
        return str(self.limits)


def use_engine_(engine: str = ENGINE) -> None:
    """Select the kernels for this process. Raises RuntimeError where this PyTorch lacks them."""
    if engine not in torch.backends.quantized.supported_engines:
        raise RuntimeError(
            f"this PyTorch has no {engine}; it offers {', '.join(torch.backends.quantized.supported_engines)}"
        )
    torch.backends.quantized.engine = engine


def _has_quantizer(prepared: fx.GraphModule, node: fx.Node) -> bool:
    return any(isinstance(module_of(prepared, user), FakeQuantize) for user in node.users)


def _convert_quantized(
    prepared: fx.GraphModule, graph_module: fx.GraphModule, call: fx.Node, quantizer: FakeQuantize, values: _Values
) -> None:
    """Add the int8 form of the operator in front of the quantizer ``call``, and register it for ``call``."""
    graph = graph_module.graph
    producer = call.args[0]
    assert isinstance(producer, fx.Node)
    inputs = list(producer.all_input_nodes)
    int8_inputs = all(arg in values.int8 for arg in inputs) and bool(inputs)
    module = module_of(prepared, producer)
    if quantizer.mode == "off" or quantizer.bits > 8 or not int8_inputs:
        if producer not in values.float:
            values.float[producer] = _float_operator(graph_module, producer, values)
        if quantizer.mode == "off":
            values.float[call] = values.float[producer]
        elif quantizer.bits > 8:
            graph_module.add_module(f"{call.name}_rounding", SimulatedRounding(quantizer))
            values.float[call] = graph.call_module(f"{call.name}_rounding", (values.float[producer],))
        else:
            values.int8[call] = _quantize(graph_module, values.float[producer], call, quantizer)
        return
    quantized = next((op for targets, op in _QUANTIZED_OPERATORS if producer.target in targets), None)
    if isinstance(module, QuantConv) and module.weight_quantizer.mode != "off":
        set_module(graph_module, str(producer.target), int8_conv(module, quantizer))
        new = graph.call_module(str(producer.target), (values.int8[inputs[0]],))
    elif quantized is not None and len(inputs) == 2 and call.target not in values.float_sums:
        qparams = _qparams(graph_module, call, quantizer)
        operator = getattr(torch.ops.quantized, quantized)
        new = graph.call_function(operator, (*(values.int8[arg] for arg in inputs), *qparams))
    elif isinstance(module, nn.Hardswish):
        qparams = _qparams(graph_module, call, quantizer)
        new = graph.call_function(torch.ops.quantized.hardswish, (values.int8[inputs[0]], *qparams))
    elif listed := joined(producer):
        dim, parts = argument(producer, 1, "dim", 0), [values.int8[arg] for arg in listed]
        new = graph.call_function(torch.ops.quantized.cat, (parts, dim, *_qparams(graph_module, call, quantizer)))
    elif keeps_quantization(prepared, producer) or isinstance(module, nn.Sigmoid):
        new = graph.node_copy(producer, lambda arg: values.int8[arg])
    else:
        new = _quantize(graph_module, _float_operator(graph_module, producer, values), call, quantizer)
    values.int8[call] = new


def _qparams(graph_module: fx.GraphModule, call: fx.Node, quantizer: FakeQuantize) -> tuple[fx.Node, fx.Node]:
    """Scale and zero point as buffers, so that the state dict holds all that the network needs."""
    nodes = []
    for suffix, value in (("scale", quantizer.scale[0].float()), ("zero_point", quantizer.zero_point[0].long())):
        name = f"{call.name}_{suffix}"
        graph_module.register_buffer(name, value.detach().cpu().clone())
        nodes.append(graph_module.graph.get_attr(name))
    return nodes[0], nodes[1]


def _quantize(graph_module: fx.GraphModule, value: fx.Node, call: fx.Node, quantizer: FakeQuantize) -> fx.Node:
    qparams = _qparams(graph_module, call, quantizer)
    return graph_module.graph.call_function(torch.quantize_per_tensor, (value, *qparams, torch.quint8))


def _float_operator(graph_module: fx.GraphModule, producer: fx.Node, values: _Values) -> fx.Node:
    """The producer in float: as it is, a QuantConv as a plain convolution."""
    if producer in values.float:
        return values.float[producer]
    module = module_of(graph_module, producer)
    if isinstance(module, QuantConv):
        set_module(graph_module, str(producer.target), float_conv(module))
    elif isinstance(module, ScaledSiLU | nn.SiLU) and producer.args[0] not in values.float:
        module.inplace = len(producer.args[0].users) == 1  # type: ignore[union-attr]
    sources = {arg: values.as_float(arg) for arg in producer.all_input_nodes}
    return graph_module.graph.node_copy(producer, lambda arg: sources[arg])


@torch.no_grad()
def int8_conv(conv: QuantConv, output: FakeQuantize) -> nn.Module:
    """The quantized convolution with BatchNorm folded in and the clamp activation inside, quantizing to ``output``.

    It is packed for the engine that is selected.
    """
    from quant.engines.saturation import conv_kind  # torch.ao: a PyTorch without it has the other engines left

    weight, bias = conv.folded()
    source, quantizer = conv.conv, conv.weight_quantizer
    kind = conv_kind(torch.backends.quantized.engine, source.groups, conv.limit is not None)
    quantized = kind(
        source.in_channels,
        source.out_channels,
        source.kernel_size,
        source.stride,
        source.padding,
        source.dilation,
        source.groups,
        bias is not None,
    )
    weight = weight.detach().float().cpu().contiguous()
    scales, zero_points = quantizer.scale.cpu(), quantizer.zero_point.cpu()
    if quantizer.per_channel:
        int8 = torch.quantize_per_channel(weight, scales.double(), zero_points.long(), 0, torch.qint8)
    else:
        int8 = torch.quantize_per_tensor(weight, float(scales), int(zero_points), torch.qint8)
    # quantize_* clips to -128; the quantizer ends at -127.
    int8 = _with_integers(int8, int8.int_repr().clamp(quantizer.quant_min, quantizer.quant_max))
    quantized.set_weight_bias(int8, None if bias is None else bias.detach().float().cpu())
    quantized.scale, quantized.zero_point = float(output.scale[0]), int(output.zero_point[0])
    return quantized


def is_int8_conv(module: nn.Module) -> TypeGuard["Conv2d"]:
    """Whether this is a convolution of PyTorch's int8 kernels: its weight and bias are packed."""
    return hasattr(module, "_packed_params")


def _with_integers(quantized: Tensor, integers: Tensor) -> Tensor:
    integers = integers.to(torch.int8)
    if quantized.qscheme() == torch.per_channel_affine:
        return torch._make_per_channel_quantized_tensor(
            integers, quantized.q_per_channel_scales(), quantized.q_per_channel_zero_points(), 0
        )
    return torch._make_per_tensor_quantized_tensor(integers, quantized.q_scale(), quantized.q_zero_point())


def graph_hash(network: fx.GraphModule, engine: str = ENGINE) -> str:
    """SHA-256 over the effective int8 network: operators, int8 weights, biases, scales and zero points, in order.

    Names do not count: two recipes that lead to the same arithmetic have the same hash. The engine counts.
    """
    digest = hashlib.sha256(b"" if engine == ENGINE else engine.encode())
    position = {node: index for index, node in enumerate(network.graph.nodes)}
    for node in network.graph.nodes:
        module = module_of(network, node)
        target = type(module).__name__ if module is not None else getattr(node.target, "__name__", str(node.target))
        arguments = fx.map_arg((node.args, dict(node.kwargs)), lambda arg: f"%{position[arg]}")
        if node.op == "placeholder":
            target = ""
        if node.op == "get_attr":
            owner, _, leaf = str(node.target).rpartition(".")
            constant = getattr(network.get_submodule(owner), leaf)
            target = str(constant.item() if constant.numel() == 1 else constant.tolist())
        digest.update(f"{node.op} {target} {arguments}\n".encode())
        if module is not None and is_int8_conv(module):
            weight, bias = module.weight(), module.bias()
            digest.update(weight.int_repr().numpy().tobytes())
            scales = weight.q_per_channel_scales() if weight.qscheme() == torch.per_channel_affine else weight.q_scale()
            digest.update(str(weight.qscheme()).encode() + str(torch.as_tensor(scales).tolist()).encode())
            digest.update(b"" if bias is None else bias.detach().numpy().tobytes())
            digest.update(f"{module.scale} {module.zero_point} {module.extra_repr()}".encode())
        elif module is not None:
            digest.update(repr(module).encode())
            for value in module.state_dict().values():
                digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()
