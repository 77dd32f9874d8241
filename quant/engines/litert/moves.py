"""Operators that move values without computing others: they stay in int8 where their input is."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from torch import fx

from quant.engines.litert.flatbuffer import Levels
from quant.engines.litert.reading import Reader, arguments, refuse, shape_of
from quant.engines.litert.values import Value

_ATEN = torch.ops.aten


def same(reader: Reader, node: fx.Node) -> Value:
    """The input itself: copies, and changes of a type that is float here anyway."""
    return reader.value(node.args[0])


def reshape(reader: Reader, node: fx.Node) -> Value:
    """Any operator that gives the same values in another shape."""
    return reader.writer.reshape(reader.value(node.args[0]), shape_of(node))


def permute(reader: Reader, node: fx.Node) -> Value:
    """``permute``, ``transpose`` and ``t``."""
    x, given = reader.value(node.args[0]), arguments(node)
    axes = list(range(x.rank))
    if "dims" in given:
        axes = [axis % x.rank for axis in given["dims"]]
    else:
        one, other = given.get("dim0", 0) % x.rank, given.get("dim1", 1) % x.rank
        axes[one], axes[other] = other, one
    return reader.writer.permute(x, axes)


def sliced(reader: Reader, x: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
    """Part of a value along one axis."""
    if (start, stop, step) == (0, x.shape[axis], 1):
        return x
    shape = tuple(len(range(start, stop, step)) if place == axis else size for place, size in enumerate(x.shape))
    writer, order = reader.writer, x.order
    starts = [start if place == axis else 0 for place in order]
    if step == 1:
        inputs = [
            writer.stored(x, order),
            writer.integers(*starts),
            writer.integers(*(shape[place] for place in order)),
        ]
        return writer.emit("SLICE", inputs, shape, order, x.levels, schema.SliceOptionsT())
    stops = [stop if place == axis else x.shape[place] for place in order]
    steps = [step if place == axis else 1 for place in order]
    inputs = [writer.stored(x, order), *(writer.integers(*numbers) for numbers in (starts, stops, steps))]
    return writer.emit("STRIDED_SLICE", inputs, shape, order, x.levels, schema.StridedSliceOptionsT())


def slice_(reader: Reader, node: fx.Node) -> Value:
    """``x[start:stop:step]`` along one axis."""
    given, x = arguments(node), reader.value(node.args[0])
    axis = given["dim"] % x.rank
    size = x.shape[axis]
    start, stop, step = slice(given["start"], given["end"], given["step"]).indices(size)
    return sliced(reader, x, axis, start, stop, step)


def select(reader: Reader, node: fx.Node) -> Value:
    """``x[index]`` along one axis, which is gone afterwards."""
    given, x = arguments(node), reader.value(node.args[0])
    axis = given["dim"] % x.rank
    index = given["index"] % x.shape[axis]
    return reader.writer.reshape(sliced(reader, x, axis, index, index + 1), shape_of(node))


def parts(reader: Reader, node: fx.Node) -> list[Value]:
    """``chunk``, ``split`` and ``unbind``: all parts, of which ``getitem`` takes one."""
    x, given = reader.value(node.args[0]), arguments(node)
    axis, found, start = given["dim"] % x.rank, [], 0
    unbound = "unbind" in str(node.target)
    for part in node.meta["val"]:
        width = 1 if unbound else part.shape[axis]
        value = sliced(reader, x, axis, start, start + width)
        found.append(reader.writer.reshape(value, tuple(part.shape)) if unbound else value)
        start += width
    return found


def getitem(reader: Reader, node: fx.Node) -> Value:
    """One of several parts."""
    found: Value = reader.values[node.args[0]][node.args[1]]  # type: ignore[index]
    return found


def concatenation(reader: Reader, node: fx.Node) -> Value:
    """``cat``: in int8 where all parts have the levels of the result, or one another's."""
    given = arguments(node)
    values = [reader.value(part) for part in given["tensors"]]
    axis = given["dim"] % values[0].rank
    return joined(reader, values, axis, reader.is_read_as(node))


def joined(reader: Reader, values: Sequence[Value], axis: int, levels: Levels | None = None) -> Value:
    """The values in one along an axis, with ``levels`` in int8."""
    writer = reader.writer
    on = [value.levels for value in values]
    levels = levels or next((one for one in on if one is not None), None)
    if levels is not None and all(value.array is not None or levels.same(value.levels) for value in values):
        values = [writer.rounded(value, levels) if value.levels is None else value for value in values]
    else:
        values, levels = [writer.as_float(value) for value in values], None
    order = next((value.order for value in values if value.array is None), values[0].order)
    shape = list(values[0].shape)
    shape[axis] = sum(value.shape[axis] for value in values)
    options = schema.ConcatenationOptionsT(axis=order.index(axis))
    return writer.emit("CONCATENATION", [writer.stored(one, order) for one in values], shape, order, levels, options)


def stack(reader: Reader, node: fx.Node) -> Value:
    """``stack``: a concatenation along a new axis."""
    given = arguments(node)
    values = [reader.value(part) for part in given["tensors"]]
    axis = given["dim"] % (values[0].rank + 1)
    widened = [reader.writer.reshape(one, (*one.shape[:axis], 1, *one.shape[axis:])) for one in values]
    return joined(reader, widened, axis, reader.is_read_as(node))


def roll(reader: Reader, node: fx.Node) -> Value:
    """``roll``: what leaves at the end comes in at the start."""
    given, x = arguments(node), reader.value(node.args[0])
    shifts, axes = ([one] if isinstance(one, int) else list(one) for one in (given["shifts"], given["dims"]))
    for shift, axis in zip(shifts, axes, strict=True):
        size = x.shape[axis % x.rank]
        if cut := -shift % size:
            halves = [sliced(reader, x, axis % x.rank, *ends) for ends in ((cut, size), (0, cut))]
            x = joined(reader, halves, axis % x.rank)
    return x


def padded(reader: Reader, x: Value, widths: Sequence[tuple[int, int]], number: float) -> Value:
    """The value with a border of ``number``; ``widths`` in front and behind of each axis."""
    if not any(map(any, widths)):
        return x
    writer, order = reader.writer, x.order
    shape = [size + sum(width) for size, width in zip(x.shape, widths, strict=True)]
    inputs = [writer.stored(x, order), writer.model.constant(np.array([widths[axis] for axis in order], np.int32))]
    if number == 0:  # in int8 it puts the zero point there
        return writer.emit("PAD", inputs, shape, order, x.levels, schema.PadOptionsT())
    if x.levels is None:
        inputs.append(writer.model.constant(np.array(number, np.float32)))
    else:
        level = np.rint(number / x.levels.scale) + x.levels.zero_point
        inputs.append(writer.model.constant(np.array(np.clip(level, -128, 127), np.int8), x.levels))
    return writer.emit("PADV2", inputs, shape, order, x.levels, schema.PadV2OptionsT())


def pad(reader: Reader, node: fx.Node) -> Value:
    """``F.pad`` by a constant or a reflection."""
    given, x = arguments(node), reader.value(node.args[0])
    flat = list(given["pad"])
    widths = [(0, 0)] * (x.rank - len(flat) // 2) + [(flat[at], flat[at + 1]) for at in range(len(flat) - 2, -1, -2)]
    mode = given.get("mode", "constant")
    for axis, (front, behind) in enumerate(widths):  # negative widths cut off
        if min(front, behind) < 0:
            x = sliced(reader, x, axis, max(-front, 0), x.shape[axis] - max(-behind, 0))
            widths[axis] = (max(front, 0), max(behind, 0))
    if mode == "constant":
        number = float(given.get("value") or 0.0)
        if number and x.levels is not None:  # its levels may have no such value
            x = reader.writer.as_float(x)
        return padded(reader, x, widths, number)
    if mode != "reflect":
        raise refuse(node, f"mode {mode}")
    writer, order = reader.writer, x.order
    inputs = [writer.stored(x, order), writer.model.constant(np.array([widths[axis] for axis in order], np.int32))]
    options = schema.MirrorPadOptionsT(mode=schema.MirrorPadMode.REFLECT)
    return writer.emit("MIRROR_PAD", inputs, shape_of(node), order, x.levels, options)


def expand(reader: Reader, node: fx.Node) -> Value:
    """``expand`` and ``repeat``: axes of one value are repeated."""
    x, shape = reader.value(node.args[0]), shape_of(node)
    x = reader.writer.reshape(x, (*[1] * (len(shape) - x.rank), *x.shape))
    times = [size // old for size, old in zip(shape, x.shape, strict=True)]
    if all(one == 1 for one in times):
        return x
    if x.array is not None:
        return replace(x, shape=shape, array=np.tile(x.array, times))
    writer, order = reader.writer, x.order
    inputs = [writer.stored(x, order), writer.integers(*(times[axis] for axis in order))]
    return writer.emit("TILE", inputs, shape, order, x.levels, schema.TileOptionsT())


def pixel_shuffle(reader: Reader, node: fx.Node) -> Value:
    """``pixel_shuffle``: channels become pixels, the channel of the result outermost."""
    x, factor = reader.value(node.args[0]), int(arguments(node)["upscale_factor"])
    count, channels, height, width = x.shape
    split = reader.writer.reshape(x, (count, channels // factor**2, factor, factor, height, width))
    return reader.writer.reshape(reader.writer.permute(split, (0, 1, 4, 2, 5, 3)), shape_of(node))


def pixel_unshuffle(reader: Reader, node: fx.Node) -> Value:
    """``pixel_unshuffle``: the other way round."""
    x, factor = reader.value(node.args[0]), int(arguments(node)["downscale_factor"])
    count, channels, height, width = x.shape
    split = reader.writer.reshape(x, (count, channels, height // factor, factor, width // factor, factor))
    return reader.writer.reshape(reader.writer.permute(split, (0, 1, 3, 5, 2, 4)), shape_of(node))


def channel_shuffle(reader: Reader, node: fx.Node) -> Value:
    """``channel_shuffle``: the channels of the groups in turns."""
    x, groups = reader.value(node.args[0]), int(arguments(node)["groups"])
    split = reader.writer.reshape(x, (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]))
    axes = (0, 2, 1, *range(3, split.rank))
    return reader.writer.reshape(reader.writer.permute(split, axes), x.shape)


def overloads(handler: Any, *names: str) -> dict[Any, Any]:
    """The handler for every overload of these operators."""
    packets = (getattr(_ATEN, name) for name in names if hasattr(_ATEN, name))
    return {getattr(packet, overload): handler for packet in packets for overload in packet.overloads()}


TABLE = {
    **overloads(same, "clone", "contiguous", "alias", "detach", "lift_fresh_copy", "dropout", "to", "_to_copy"),
    **overloads(
        reshape,
        "view",
        "reshape",
        "_unsafe_view",
        "flatten",
        "unflatten",
        "reshape_as",
        "view_as",
        "squeeze",
        "unsqueeze",
    ),
    **overloads(permute, "permute", "transpose", "t"),
    **overloads(slice_, "slice"),
    **overloads(select, "select"),
    **overloads(parts, "chunk", "split", "split_with_sizes", "unbind", "tensor_split"),
    **overloads(concatenation, "cat", "concat"),
    **overloads(stack, "stack"),
    **overloads(roll, "roll"),
    **overloads(pad, "pad", "constant_pad_nd"),
    **overloads(expand, "expand", "expand_as", "repeat"),
    **overloads(pixel_shuffle, "pixel_shuffle"),
    **overloads(pixel_unshuffle, "pixel_unshuffle"),
    **overloads(channel_shuffle, "channel_shuffle"),
}
