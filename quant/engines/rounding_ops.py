"""Quantize and dequantize as operators of our own, by the names and rules of ``torch.ops.quantized_decomposed``.

Those live in ``torch.ao``, which PyTorch is giving up, and nothing else defines them. Two cannot stand beside each
other, whoever comes first: so these have a namespace of their own, and each exporter calls them by what it reads.
"""

import torch
from torch import Tensor

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
