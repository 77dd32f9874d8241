"""What transformers are made of, in float: normalization, softmax, and products of two activations."""

import math
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from torch import fx

from quant.engines.litert.elementwise import binary, unary
from quant.engines.litert.moves import overloads
from quant.engines.litert.pictures import averaged
from quant.engines.litert.reading import Reader, arguments, refuse, shape_of
from quant.engines.litert.values import Value, constant


def _normalized(reader: Reader, x: Value, axes: Sequence[int], eps: float) -> Value:
    """``(x - mean) / sqrt(variance + eps)`` along axes."""
    mean = averaged(reader, x, axes, True)
    variance = averaged(reader, binary(reader, "SQUARED_DIFFERENCE", x, mean), axes, True)
    factor = unary(reader, "RSQRT", binary(reader, "ADD", variance, reader.value(eps)))
    return binary(reader, "MUL", binary(reader, "SUB", x, mean), factor)


def _affine(reader: Reader, x: Value, weight: Value | None, bias: Value | None) -> Value:
    for code, by in (("MUL", weight), ("ADD", bias)):
        if by is not None:
            x = binary(reader, code, x, by)
    return x


def layer_norm(reader: Reader, node: fx.Node) -> Value:
    """Normalization along the last axes."""
    given, x = arguments(node), reader.float_value(node.args[0])
    axes = range(x.rank - len(given["normalized_shape"]), x.rank)
    by = [None if given[name] is None else reader.value(given[name]) for name in ("weight", "bias")]
    return _affine(reader, _normalized(reader, x, axes, given["eps"]), *by)


def group_norm(reader: Reader, node: fx.Node) -> Value:
    """Normalization of groups of channels."""
    given, x = arguments(node), reader.float_value(node.args[0])
    shape, groups = x.shape, given["num_groups"]
    split = reader.writer.reshape(x, (shape[0], groups, shape[1] // groups, *shape[2:]))
    whole = reader.writer.reshape(_normalized(reader, split, range(2, split.rank), given["eps"]), shape)
    by = [_of_channels(reader, given[name], x.rank) for name in ("weight", "bias")]
    return _affine(reader, whole, *by)


def batch_norm(reader: Reader, node: fx.Node) -> Value:
    """A frozen BatchNorm that no convolution is in front of."""
    given, x = arguments(node), reader.float_value(node.args[0])
    names = ("weight", "bias", "running_mean", "running_var")
    weight, bias, mean, variance = (None if given[name] is None else reader.value(given[name]).array for name in names)
    factor = (1.0 if weight is None else weight) / np.sqrt(variance + given["eps"])
    shift = (0.0 if bias is None else bias) - mean * factor
    shape = (len(factor), *[1] * (x.rank - 2))
    return _affine(reader, x, *(constant(one.astype(np.float32).reshape(shape)) for one in (factor, shift)))


def _of_channels(reader: Reader, argument: object, rank: int) -> Value | None:
    if argument is None:
        return None
    value = reader.value(argument)
    return reader.writer.reshape(value, (value.shape[0], *[1] * (rank - 2)))


def softmax(reader: Reader, node: fx.Node) -> Value:
    """Along one axis, which the kernels want last."""
    return _softmax(reader, reader.float_value(node.args[0]), arguments(node)["dim"])


def _softmax(reader: Reader, x: Value, axis: int) -> Value:
    order = (*(place for place in x.order if place != axis % x.rank), axis % x.rank)
    inputs = [reader.writer.stored(x, order)]
    return reader.writer.emit("SOFTMAX", inputs, x.shape, order, None, schema.SoftmaxOptionsT(beta=1.0))


def matmul(reader: Reader, node: fx.Node) -> Value:
    """``matmul`` and ``bmm`` of values of two or more axes."""
    one, other = (reader.float_value(argument) for argument in node.args[:2])
    if min(one.rank, other.rank) < 2:
        raise refuse(node, "a vector")
    return _product(reader, one, other)


def _product(reader: Reader, one: Value, other: Value) -> Value:
    writer, rank = reader.writer, max(one.rank, other.rank)
    one, other = (writer.reshape(value, (*[1] * (rank - value.rank), *value.shape)) for value in (one, other))
    shape = (*np.broadcast_shapes(one.shape[:-2], other.shape[:-2]), one.shape[-2], other.shape[-1])
    straight = tuple(range(rank))
    turned = (*straight[:-2], rank - 1, rank - 2)
    adjoint = [value.array is None and value.order == turned for value in (one, other)]
    inputs = [
        writer.stored(value, turned if swapped else straight)
        for value, swapped in zip((one, other), adjoint, strict=True)
    ]
    options = schema.BatchMatMulOptionsT(adjX=adjoint[0], adjY=adjoint[1])
    return writer.emit("BATCH_MATMUL", inputs, shape, straight, None, options)


def attention(reader: Reader, node: fx.Node) -> Value:
    """``scaled_dot_product_attention`` of queries, keys and values."""
    given = arguments(node)
    query, key, value = (reader.float_value(given[name]) for name in ("query", "key", "value"))
    if given["is_causal"]:
        raise refuse(node, "a causal mask")
    scale = given["scale"] or 1 / math.sqrt(query.shape[-1])
    axes = (*range(key.rank - 2), key.rank - 1, key.rank - 2)
    scaled = binary(reader, "MUL", query, reader.value(float(scale)))
    scores = _product(reader, scaled, reader.writer.permute(key, axes))
    if given["attn_mask"] is not None:
        mask = reader.value(given["attn_mask"])
        if mask.array is not None and mask.array.dtype == np.bool_:
            mask = constant(np.where(mask.array, 0.0, -1e9).astype(np.float32))
        scores = binary(reader, "ADD", scores, mask)
    return _product(reader, _softmax(reader, scores, -1), value)


def _reduced(reader: Reader, code: str, x: Value, node: fx.Node) -> Value:
    """One value along the axes that a node names, or along all."""
    axes = {axis % x.rank for axis in (arguments(node).get("dim") or range(x.rank))}
    writer, order = reader.writer, x.order
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    inputs = [writer.stored(x, order), writer.integers(*sorted(order.index(axis) for axis in axes))]
    value = writer.emit(code, inputs, shape, order, None, schema.ReducerOptionsT(keepDims=True))
    return writer.reshape(value, shape_of(node))


def total(reader: Reader, node: fx.Node) -> Value:
    """``sum``."""
    return _reduced(reader, "SUM", reader.float_value(node.args[0]), node)


def largest(reader: Reader, node: fx.Node) -> Value:
    """``amax``."""
    return _reduced(reader, "REDUCE_MAX", reader.float_value(node.args[0]), node)


def norm(reader: Reader, node: fx.Node) -> Value:
    """The length of vectors, as ``F.normalize`` divides by."""
    if arguments(node)["ord"] != 2:
        raise refuse(node, f"order {arguments(node)['ord']}")
    squares = unary(reader, "SQUARE", reader.float_value(node.args[0]))
    return unary(reader, "SQRT", _reduced(reader, "SUM", squares, node))


TABLE = {
    **overloads(layer_norm, "layer_norm"),
    **overloads(group_norm, "group_norm"),
    **overloads(batch_norm, "batch_norm"),
    **overloads(softmax, "softmax", "_softmax"),
    **overloads(matmul, "matmul", "bmm"),
    **overloads(attention, "scaled_dot_product_attention"),
    **overloads(total, "sum"),
    **overloads(largest, "amax"),
    **overloads(norm, "linalg_vector_norm"),
}
