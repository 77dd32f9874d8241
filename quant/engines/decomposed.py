"""The prepared network in the quantized operators that exporters read: int8 constants, quantize and dequantize.

They are the common language of torchao's pt2e, ExecuTorch and the ONNX exporter. The integers of the weights, the
scales and the zero points are those of the recipe; an exporter copies them and calibrates nothing itself.
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from quant.fake_quantize import FakeQuantize
from quant.graph import finish, module_of, set_module
from quant.prepare import QuantConv, float_conv
from quant.scaled_silu import ScaledSiLU

# Those of ``torch.ops.quantized_decomposed`` live in torch.ao, which PyTorch is giving up, and nothing else defines
# them. Two cannot stand beside each other, whoever comes first: so ours, by the same names and rules, have a namespace
# of their own, and each exporter calls them by what it reads.
_LIBRARY = torch.library.Library("quant", "DEF")
_LEVELS = "int quant_min, int quant_max, ScalarType dtype"


def _quantize(
    input: Tensor, scale: float, zero_point: int, quant_min: int, quant_max: int, dtype: torch.dtype
) -> Tensor:
    return torch.clamp(torch.round(input * (1.0 / scale)) + zero_point, quant_min, quant_max).to(dtype)


def _dequantize(
    input: Tensor, scale: float, zero_point: int, quant_min: int, quant_max: int, dtype: torch.dtype
) -> Tensor:
    return (input.float() - zero_point) * scale


def _dequantize_channels(
    input: Tensor, scales: Tensor, zero_points: Tensor, axis: int, quant_min: int, quant_max: int, dtype: torch.dtype
) -> Tensor:
    shape = [-1 if dim == axis else 1 for dim in range(input.dim())]
    return ((input - zero_points.view(shape)) * scales.view(shape)).float()


for _schema, _function in (
    (f"quantize_per_tensor(Tensor input, float scale, int zero_point, {_LEVELS}) -> Tensor", _quantize),
    (f"dequantize_per_tensor(Tensor input, float scale, int zero_point, {_LEVELS}) -> Tensor", _dequantize),
    (
        f"dequantize_per_channel(Tensor input, Tensor scales, Tensor zero_points, int axis, {_LEVELS}) -> Tensor",
        _dequantize_channels,
    ),
):
    _name = _LIBRARY.define(_schema)
    for _key in ("CompositeExplicitAutograd", "Meta"):
        _LIBRARY.impl(_name, _function, _key)

QUANTIZE = torch.ops.quant.quantize_per_tensor.default
DEQUANTIZE = torch.ops.quant.dequantize_per_tensor.default
DEQUANTIZE_CHANNELS = torch.ops.quant.dequantize_per_channel.default
ROUNDING = (QUANTIZE, DEQUANTIZE, DEQUANTIZE_CHANNELS)

_SHIFT = 128


class Int8Conv(nn.Module):
    """A convolution whose weight is kept as integers, with its clamp activation."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, source: QuantConv) -> None:
        super().__init__()
        weight, bias = source.folded()
        quantizer, conv = source.weight_quantizer, source.conv
        self.limit = source.limit
        self.geometry: Any = (conv.stride, conv.padding, conv.dilation, conv.groups)
        self.register_buffer("weight", quantizer.quantize(weight.detach().cpu()).to(torch.int8))
        self.register_buffer("bias", None if bias is None else bias.detach().float().cpu())
        self.per_channel = quantizer.per_channel
        if self.per_channel:
            self.register_buffer("scale", quantizer.scale.detach().float().cpu().clone())
            self.register_buffer("zero_point", torch.zeros(len(quantizer.scale), dtype=torch.int64))
        else:
            self.scale = float(quantizer.scale[0])

    def forward(self, x: Tensor) -> Tensor:
        """Nx{in}xHxW to Nx{out}xH'xW'."""
        if self.per_channel:
            weight = DEQUANTIZE_CHANNELS(self.weight, self.scale, self.zero_point, 0, -127, 127, torch.int8)
        else:
            weight = DEQUANTIZE(self.weight, self.scale, 0, -127, 127, torch.int8)
        y = F.conv2d(x, weight, self.bias, *self.geometry)
        if self.limit is None:
            return y
        return F.relu(y) if self.limit == float("inf") else F.hardtanh(y, 0.0, self.limit)

    def extra_repr(self) -> str:
        """All that is not in the state dict."""
        return f"{self.geometry}, {self.limit}, {'per channel' if self.per_channel else self.scale}"


class ConstantScaledSiLU(nn.Module):
    """A ScaledSiLU with its scales as constants, in the fewest operators: ``x * sigmoid(x / f)``."""

    slope: Tensor

    def __init__(self, source: ScaledSiLU) -> None:
        super().__init__()
        self.register_buffer("slope", (1.0 / source.scale()).detach().cpu())

    def forward(self, x: Tensor) -> Tensor:
        """NxCxHxW to the same shape."""
        return x * torch.sigmoid(x * self.slope)


@torch.no_grad()
def decompose(prepared: fx.GraphModule, signed: bool) -> fx.GraphModule:
    """The prepared network with frozen quantizers as float operators between explicit roundings, on the CPU.

    ``signed``: the levels of activations are -128 to 127 in place of 0 to 255, the same values by a zero point that
    is 128 lower. Every reader of a rounded value has a dequantize of its own: partitioners cut the graph there.
    """
    graph_module = copy.deepcopy(prepared).cpu()
    for node in list(graph_module.graph.nodes):
        module = module_of(graph_module, node)
        if isinstance(module, FakeQuantize):
            if module.mode == "off":
                node.replace_all_uses_with(node.args[0])
            elif module.bits > 8:
                _simulate(graph_module, node, module)
            else:
                _round(graph_module, node, module, _SHIFT if signed else 0)
            graph_module.graph.erase_node(node)
        elif isinstance(module, ScaledSiLU):
            set_module(graph_module, str(node.target), ConstantScaledSiLU(module))
        elif isinstance(module, QuantConv):
            quantized = module.weight_quantizer.mode != "off"
            set_module(graph_module, str(node.target), Int8Conv(module) if quantized else float_conv(module))
    return finish(graph_module).eval()


def _round(graph_module: fx.GraphModule, call: fx.Node, quantizer: FakeQuantize, shift: int) -> None:
    """Put quantize and dequantize in the place of the quantizer's ``call``."""
    dtype = torch.int8 if shift else torch.uint8
    zero_point = int(quantizer.zero_point[0]) - shift
    arguments = (float(quantizer.scale[0]), zero_point, -shift, 255 - shift, dtype)
    graph = graph_module.graph
    with graph.inserting_before(call):
        levels = graph.call_function(QUANTIZE, (call.args[0], *arguments))
        for user in list(call.users):
            value = graph.call_function(DEQUANTIZE, (levels, *arguments))
            user.replace_input_with(call, value)


def _simulate(graph_module: fx.GraphModule, call: fx.Node, quantizer: FakeQuantize) -> None:
    """Put a rounding in float, as no engine has kernels for so many bits, in the place of the quantizer's ``call``."""
    step, zero_point = float(quantizer.scale[0]), int(quantizer.zero_point[0])
    limits = (quantizer.quant_min - zero_point, quantizer.quant_max - zero_point)
    graph = graph_module.graph
    with graph.inserting_before(call):
        levels = graph.call_function(torch.round, (graph.call_function(torch.mul, (call.args[0], 1.0 / step)),))
        value = graph.call_function(torch.mul, (graph.call_function(torch.clamp, (levels, *limits)), step))
    call.replace_all_uses_with(value)
