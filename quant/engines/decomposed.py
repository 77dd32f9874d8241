"""The prepared network in the quantized operators that exporters read: int8 constants, quantize and dequantize.

``torch.ops.quantized_decomposed`` is the common language of torchao's pt2e, ExecuTorch and the ONNX exporter. The
integers of the weights, the scales and the zero points are those of the recipe; an exporter finds them, and calibrates
nothing itself.
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.ao.quantization.fx import _decomposed as _registers_the_operators  # noqa: F401

from quant.engines.qnnpack import float_conv
from quant.graph import finish, module_of, set_module
from quant.prepare import QuantConv
from quant.quantizer import Quantizer

_OPS = torch.ops.quantized_decomposed
_SHIFT = 128


class Requantize(nn.Module):
    """Rounds a float value to its 256 levels and gives it back: quantize, dequantize.

    ``signed``: int8 levels -128 to 127 in place of 0 to 255, the same values by a zero point 128 lower.
    """

    def __init__(self, quantizer: Quantizer, signed: bool) -> None:
        super().__init__()
        self.scale = float(quantizer.scale[0])
        shift = _SHIFT if signed else 0
        self.zero_point = int(quantizer.zero_point[0]) - shift
        self.limits = (-shift, 255 - shift)
        self.dtype = torch.int8 if signed else torch.uint8

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        levels = _OPS.quantize_per_tensor(x, self.scale, self.zero_point, *self.limits, self.dtype)
        return _OPS.dequantize_per_tensor(levels, self.scale, self.zero_point, *self.limits, self.dtype)


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
            weight = _OPS.dequantize_per_channel(self.weight, self.scale, self.zero_point, 0, -127, 127, torch.int8)
        else:
            weight = _OPS.dequantize_per_tensor(self.weight, self.scale, 0, -127, 127, torch.int8)
        y = F.conv2d(x, weight, self.bias, *self.geometry)
        if self.limit is None:
            return y
        return F.relu(y) if self.limit == float("inf") else F.hardtanh(y, 0.0, self.limit)


@torch.no_grad()
def decompose(prepared: fx.GraphModule, signed: bool) -> fx.GraphModule:
    """The prepared network with frozen quantizers as float operators between explicit roundings, on the CPU."""
    graph_module = copy.deepcopy(prepared).cpu()
    for node in list(graph_module.graph.nodes):
        module = module_of(graph_module, node)
        if isinstance(module, Quantizer):
            if module.mode == "off":
                node.replace_all_uses_with(node.args[0])
                graph_module.graph.erase_node(node)
            else:
                set_module(graph_module, str(node.target), Requantize(module, signed))
        elif isinstance(module, QuantConv):
            quantized = module.weight_quantizer.mode != "off"
            set_module(graph_module, str(node.target), Int8Conv(module) if quantized else float_conv(module))
    return finish(graph_module).eval()
