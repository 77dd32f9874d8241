"""Convolutions and linear layers, in int8 or in float, with the clamp behind them."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from torch import fx

from quant.engines.decomposed import DEQUANTIZE_CHANNELS
from quant.engines.int8_forms import fits_in_4_bits
from quant.engines.litert.flatbuffer import Levels
from quant.engines.litert.moves import joined, padded, sliced
from quant.engines.litert.reading import Reader, arguments, refuse, shape_of
from quant.engines.litert.values import IMAGE, Value, constant

_DEPTHWISE = (1, 2, 3, 0)
_MOST = 2**31 - 1


def conv2d(reader: Reader, node: fx.Node) -> Value:
    """Also in one dimension of padding words, which are numbers here."""
    given = arguments(node)
    x, weight = reader.value(given["input"]), reader.value(given["weight"])
    bias = None if given["bias"] is None else reader.value(given["bias"]).array
    stride, dilation = (_pair(given[name]) for name in ("stride", "dilation"))
    kernel = weight.shape[2:]
    last, clamp = reader.fused(node)
    levels = reader.is_read_as(last)
    bias_levels = _bias_levels(x, weight, bias) if levels is not None else None
    if bias_levels is None:
        x, weight, levels = reader.writer.as_float(x), reader.writer.as_float(weight), None
    groups, channels = int(given["groups"]), x.shape[1]
    pads = _pads(node, given["padding"], kernel, dilation)
    if bias_levels is not None and groups == 1 and fits_in_4_bits(torch.from_numpy(weight.array)):
        x = _windows(reader, padded(reader, x, [(0, 0), (0, 0), *pads], 0.0), kernel, stride, dilation)
        on = _bias(bias, weight.shape[0], bias_levels)
        result = reader.values[last] = _fully_connected(reader, x, weight, on, levels, clamp)
        return result
    x, same = _padded(reader, x, pads, kernel, stride, dilation)
    depthwise = groups == channels and groups > 1
    options = (schema.DepthwiseConv2DOptionsT if depthwise else schema.Conv2DOptionsT)(
        padding=schema.Padding.SAME if same else schema.Padding.VALID,
        strideH=stride[0],
        strideW=stride[1],
        dilationHFactor=dilation[0],
        dilationWFactor=dilation[1],
        fusedActivationFunction=getattr(schema.ActivationFunctionType, clamp),
    )
    if depthwise:
        options.depthMultiplier = weight.shape[0] // groups
    writer = reader.writer
    inputs = [
        writer.stored(x, IMAGE),
        writer.stored(weight, _DEPTHWISE if depthwise else IMAGE),
        writer.model.constant(*_bias(bias, weight.shape[0], bias_levels)),
    ]
    code = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    result = writer.emit(code, inputs, shape_of(node), IMAGE, levels, options)
    reader.values[last] = result
    return result


def _windows(reader: Reader, x: Value, kernel: Any, stride: Any, dilation: Any) -> Value:
    """What each output reads, as its channels: the image once for each place of the kernel, moved by it."""
    spans = [
        [(place * step, place * step + size - (reach - 1) * step, pace) for place in range(reach)]
        for size, reach, step, pace in zip(x.shape[2:], kernel, dilation, stride, strict=True)
    ]
    rows = [sliced(reader, x, 2, *span) for span in spans[0]]
    return _joined(reader, [_joined(reader, [sliced(reader, row, 3, *span) for span in spans[1]]) for row in rows])


def _joined(reader: Reader, images: list[Value]) -> Value:
    """By rows of the kernel, as XNNPACK joins no more than five."""
    return images[0] if len(images) == 1 else joined(reader, images, 1)


def _fully_connected(reader: Reader, x: Value, weight: Value, bias: Any, levels: Levels | None, clamp: str) -> Value:
    """A convolution as a linear layer of each output's window: for others of 4 bits XNNPACK has no kernels."""
    writer, rows = reader.writer, weight.array.transpose(IMAGE).reshape(weight.shape[0], -1)
    flat = replace(weight, shape=rows.shape, order=(0, 1), array=rows, bits=4)
    inputs = [writer.stored(x, IMAGE), writer.stored(flat, (0, 1)), writer.model.constant(*bias)]
    options = schema.FullyConnectedOptionsT(
        keepNumDims=True, fusedActivationFunction=getattr(schema.ActivationFunctionType, clamp)
    )
    shape = (x.shape[0], weight.shape[0], *x.shape[2:])
    return writer.emit("FULLY_CONNECTED", inputs, shape, IMAGE, levels, options)


def linear(reader: Reader, node: fx.Node) -> Value:
    """A linear layer, in float: those of a recipe are convolutions."""
    given = arguments(node)
    x, weight = reader.float_value(given["input"]), reader.float_value(given["weight"])
    bias = None if given["bias"] is None else reader.value(given["bias"]).array
    writer, order = reader.writer, tuple(range(x.rank))
    inputs = [writer.stored(x, order), writer.stored(weight, (0, 1))]
    inputs.append(writer.model.constant(*_bias(bias, weight.shape[0], None)))
    options = schema.FullyConnectedOptionsT(keepNumDims=True)
    return writer.emit("FULLY_CONNECTED", inputs, shape_of(node), order, None, options)


def _pair(sizes: Any) -> tuple[int, int]:
    sizes = [sizes] if isinstance(sizes, int) else list(sizes)
    return (int(sizes[0]), int(sizes[-1]))


def _pads(node: fx.Node, padding: Any, kernel: Any, dilation: tuple[int, int]) -> list[tuple[int, int]]:
    """Rows and columns in front and behind."""
    if padding == "valid":
        return [(0, 0), (0, 0)]
    if padding == "same":
        totals = [(size - 1) * step for size, step in zip(kernel, dilation, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    if isinstance(padding, str):
        raise refuse(node, f"padding {padding}")
    return [(width, width) for width in _pair(padding)]


def _padded(reader: Reader, x: Value, pads: Any, kernel: Any, stride: Any, dilation: Any) -> tuple[Value, bool]:
    """The input, and whether the convolution pads it itself, which puts the odd row behind."""
    same = []
    for axis, pad in enumerate(pads):
        size = x.shape[2 + axis]
        reach = (kernel[axis] - 1) * dilation[axis] + 1
        total = max((-(-size // stride[axis]) - 1) * stride[axis] + reach - size, 0)
        same.append(pad == (total // 2, total - total // 2))
    if all(pad == (0, 0) for pad in pads):
        return x, False
    if all(same):
        return x, True
    return padded(reader, x, [(0, 0), (0, 0), *pads], 0.0), False


def _bias_levels(x: Value, weight: Value, bias: Any) -> Levels | None:
    """The levels of the sums of int8 products, where there are such, and the bias fits among them."""
    if x.levels is None or weight.levels is None:
        return None
    scale = (np.float64(x.levels.scale) * np.asarray(weight.levels.scale, np.float64)).astype(np.float32)
    fits = bias is None or bool((np.abs(bias / np.float64(scale)) < _MOST).all())
    return Levels(scale, 0) if fits else None


def _bias(bias: Any, channels: int, levels: Levels | None) -> tuple[Any, Levels | None]:
    """A bias as the operator takes it, in int32 for sums of int8 products; zeros if there is none."""
    values = np.zeros(channels, np.float32) if bias is None else bias
    if levels is None:
        return values, None
    return np.rint(values / np.asarray(levels.scale, np.float64)).astype(np.int32), levels


def dequantize_per_channel(reader: Reader, node: fx.Node) -> Value:
    """An int8 weight with a scale a channel: it stays as it is."""
    weight, scales = (reader.value(node.args[place]).array for place in (0, 1))
    axis: Any = node.args[3]
    return constant(weight, Levels(scales, 0, int(axis)))


TABLE = {
    torch.ops.aten.conv2d.default: conv2d,
    torch.ops.aten.conv2d.padding: conv2d,
    torch.ops.aten.linear.default: linear,
    DEQUANTIZE_CHANNELS: dequantize_per_channel,
}
