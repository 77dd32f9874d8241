"""Pooling and resizing of images."""

from typing import Any

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from torch import fx

from quant.engines.litert.moves import joined, padded, sliced
from quant.engines.litert.reading import Reader, arguments, refuse, shape_of
from quant.engines.litert.values import IMAGE, Value

_ATEN = torch.ops.aten
_LEAST = float(np.finfo(np.float32).min)


def _pair(sizes: Any) -> tuple[int, int]:
    sizes = [sizes] if isinstance(sizes, int) else list(sizes)
    return (int(sizes[0]), int(sizes[-1]))


def _pool_options(kernel: tuple[int, int], stride: tuple[int, int]) -> Any:
    return schema.Pool2DOptionsT(
        padding=schema.Padding.VALID,
        strideH=stride[0],
        strideW=stride[1],
        filterHeight=kernel[0],
        filterWidth=kernel[1],
    )


def _border(node: fx.Node, x: Value, given: dict[str, Any], kernel: Any, stride: Any) -> list[tuple[int, int]]:
    """How far windows reach beyond the image on each side."""
    padding = _pair(given["padding"] or 0)
    out = shape_of(node)[2:]
    needed = [(out[axis] - 1) * stride[axis] + kernel[axis] for axis in (0, 1)]
    return [(padding[axis], max(needed[axis] - x.shape[2 + axis] - padding[axis], 0)) for axis in (0, 1)]


def max_pool2d(reader: Reader, node: fx.Node) -> Value:
    """Maxima of windows; the border around the image is the least value that there is."""
    given, x = arguments(node), reader.value(node.args[0])
    kernel = _pair(given["kernel_size"])
    stride = _pair(given["stride"] or kernel)
    if _pair(given["dilation"]) != (1, 1):
        raise refuse(node, f"dilation {given['dilation']}")
    border = _border(node, x, given, kernel, stride)
    if any(map(any, border)):
        least = _LEAST if x.levels is None else x.levels.scale * (-128 - x.levels.zero_point)
        x = padded(reader, x, [(0, 0), (0, 0), *border], least)
    inputs = [reader.writer.stored(x, IMAGE)]
    return reader.writer.emit("MAX_POOL_2D", inputs, shape_of(node), IMAGE, x.levels, _pool_options(kernel, stride))


def avg_pool2d(reader: Reader, node: fx.Node) -> Value:
    """Averages of windows, which count the zeros of the border."""
    given, x = arguments(node), reader.value(node.args[0])
    kernel = _pair(given["kernel_size"])
    stride = _pair(given["stride"] or kernel)
    border = _border(node, x, given, kernel, stride)
    padding = _pair(given["padding"])
    if given["divisor_override"] not in (None, kernel[0] * kernel[1]):
        raise refuse(node, f"divisor {given['divisor_override']}")
    if any(map(any, border)) and (
        not given["count_include_pad"] or any(side[1] > pad for side, pad in zip(border, padding, strict=True))
    ):
        raise refuse(node, "a border that does not count")
    if any(map(any, border)):
        x = padded(reader, x, [(0, 0), (0, 0), *border], 0.0)
    return _average(reader, x, kernel, stride, node)


def _average(reader: Reader, x: Value, kernel: tuple[int, int], stride: tuple[int, int], node: fx.Node) -> Value:
    """In int8 where the result is read in the levels of the input."""
    levels = reader.is_read_as(node)
    if levels is None or not levels.same(x.levels):
        x, levels = reader.writer.as_float(x), None
    inputs = [reader.writer.stored(x, IMAGE)]
    return reader.writer.emit("AVERAGE_POOL_2D", inputs, shape_of(node), IMAGE, levels, _pool_options(kernel, stride))


def adaptive_avg_pool2d(reader: Reader, node: fx.Node) -> Value:
    """Averages of parts of the image of equal size, or of all of it."""
    x, sizes = reader.value(node.args[0]), shape_of(node)[2:]
    if sizes == (1, 1):
        return averaged(reader, x, (2, 3), True, node)
    if x.shape[2] % sizes[0] or x.shape[3] % sizes[1]:
        return _uneven(reader, x, sizes)
    window = (x.shape[2] // sizes[0], x.shape[3] // sizes[1])
    return _average(reader, x, window, window, node)


def _uneven(reader: Reader, x: Value, sizes: tuple[int, ...]) -> Value:
    """Averages of rows and then of columns whose numbers differ by one, in float."""
    x = reader.writer.as_float(x)
    for axis, count in zip((2, 3), sizes, strict=True):
        size = x.shape[axis]
        ends = [(at * size // count, -(-(at + 1) * size // count)) for at in range(count)]
        x = joined(reader, [averaged(reader, sliced(reader, x, axis, *end), (axis,), True) for end in ends], axis)
    return x


def averaged(reader: Reader, x: Value, axes: Any, keep: bool, node: fx.Node | None = None) -> Value:
    """The mean along axes; in int8 where ``node`` is what it is written for, and is read in int8."""
    levels = reader.is_read_as(node) if node is not None and x.levels is not None else None
    if levels is None:
        x = reader.writer.as_float(x)
    writer, order = reader.writer, x.order
    places = sorted(order.index(axis % x.rank) for axis in axes)
    reduced = {axis % x.rank for axis in axes}
    shape = tuple(1 if axis in reduced else size for axis, size in enumerate(x.shape))
    inputs = [writer.stored(x, order), writer.integers(*places)]
    value = writer.emit("MEAN", inputs, shape, order, levels, schema.ReducerOptionsT(keepDims=True))
    return value if keep else writer.reshape(value, [size for axis, size in enumerate(shape) if axis not in reduced])


def mean(reader: Reader, node: fx.Node) -> Value:
    """``mean`` along axes."""
    given, x = arguments(node), reader.value(node.args[0])
    return averaged(reader, x, given.get("dim") or range(x.rank), bool(given.get("keepdim")), node)


def _resize(reader: Reader, node: fx.Node, code: str, options: Any) -> Value:
    given, x, shape = arguments(node), reader.value(node.args[0]), shape_of(node)
    for axis, factor in enumerate(given.get("scale_factors") or ()):
        if x.shape[2 + axis] * factor != shape[2 + axis] and not getattr(options, "alignCorners", False):
            raise refuse(node, f"a factor of {factor} for {x.shape[2 + axis]} pixels, which gives no whole number")
    levels = x.levels if code == "RESIZE_NEAREST_NEIGHBOR" else reader.is_read_as(node)
    if levels is None or not levels.same(x.levels):
        x, levels = reader.writer.as_float(x), None
    inputs = [reader.writer.stored(x, IMAGE), reader.writer.integers(*shape[2:])]
    return reader.writer.emit(code, inputs, shape, IMAGE, levels, options)


def bilinear(reader: Reader, node: fx.Node) -> Value:
    """Bilinear resizing."""
    aligned = bool(arguments(node)["align_corners"])
    options = schema.ResizeBilinearOptionsT(alignCorners=aligned, halfPixelCenters=not aligned)
    return _resize(reader, node, "RESIZE_BILINEAR", options)


def nearest(reader: Reader, node: fx.Node) -> Value:
    """The nearest pixel; ``nearest-exact`` counts from the middle of pixels."""
    options = schema.ResizeNearestNeighborOptionsT(halfPixelCenters="exact" in str(node.target))
    return _resize(reader, node, "RESIZE_NEAREST_NEIGHBOR", options)


TABLE = {
    _ATEN.max_pool2d.default: max_pool2d,
    _ATEN.avg_pool2d.default: avg_pool2d,
    _ATEN.adaptive_avg_pool2d.default: adaptive_avg_pool2d,
    _ATEN.mean.dim: mean,
    _ATEN.mean.default: mean,
    _ATEN.upsample_bilinear2d.vec: bilinear,
    _ATEN.upsample_bilinear2d.default: bilinear,
    _ATEN.upsample_nearest2d.vec: nearest,
    _ATEN.upsample_nearest2d.default: nearest,
    _ATEN._upsample_nearest_exact2d.vec: nearest,
    _ATEN._upsample_nearest_exact2d.default: nearest,
}
