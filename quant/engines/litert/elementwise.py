"""Functions of each value, and sums and products of two of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from torch import fx

from quant.engines.litert.flatbuffer import Levels
from quant.engines.litert.moves import overloads
from quant.engines.litert.reading import Reader, arguments, refuse
from quant.engines.litert.values import Value, elements

_ATEN = torch.ops.aten
SIGMOID = Levels(1 / 256, -128)
"""The levels that the int8 sigmoid gives."""
_WITH_CLAMP = {
    "ADD": schema.AddOptionsT,
    "SUB": schema.SubOptionsT,
    "MUL": schema.MulOptionsT,
    "DIV": schema.DivOptionsT,
}
_IN_INT8 = ("ADD", "SUB", "MUL")


def binary(
    reader: Reader, code: str, one: Value, other: Value, levels: Levels | None = None, clamp: str = "NONE"
) -> Value:
    """``one`` and ``other`` by an operator of the format, broadcast; in float, or, with ``levels``, in int8."""
    writer = reader.writer
    if levels is None:
        one, other = writer.as_float(one), writer.as_float(other)
    rank = max(one.rank, other.rank)
    one, other = (writer.reshape(value, (*[1] * (rank - value.rank), *value.shape)) for value in (one, other))
    largest = max((one, other), key=lambda value: (value.array is None, elements(value.shape)))
    shape = np.broadcast_shapes(one.shape, other.shape)
    inputs = [writer.stored(value, largest.order) for value in (one, other)]
    options = None
    if code in _WITH_CLAMP:
        options = _WITH_CLAMP[code](fusedActivationFunction=getattr(schema.ActivationFunctionType, clamp))
    return writer.emit(code, inputs, shape, largest.order, levels, options)


def _binary(code: str) -> Callable[[Reader, fx.Node], Value]:
    def write(reader: Reader, node: fx.Node) -> Value:
        given = arguments(node)
        one, other = (reader.value(argument) for argument in list(given.values())[:2])
        if given.get("alpha") not in (None, 1):
            other = binary(reader, "MUL", other, reader.value(float(given["alpha"])))
        last, clamp = reader.fused(node) if code in _WITH_CLAMP else (node, "NONE")
        levels = reader.is_read_as(last)
        if code not in _IN_INT8 or one.levels is None or other.levels is None:
            levels = None
        reader.values[last] = binary(reader, code, one, other, levels, clamp)
        result: Value = reader.values[last]
        return result

    return write


def reversed_difference(reader: Reader, node: fx.Node) -> Value:
    """``rsub``: the second minus the first."""
    one, other = (reader.value(argument) for argument in list(arguments(node).values())[:2])
    return binary(reader, "SUB", other, one)


def unary(reader: Reader, code: str, x: Value, levels: Levels | None = None, options: Any = None) -> Value:
    """A function of ``x`` by an operator of the format; in float, or, with ``levels``, in int8."""
    if levels is None:
        x = reader.writer.as_float(x)
    return reader.writer.emit(code, [reader.writer.stored(x, x.order)], x.shape, x.order, levels, options)


def _float(code: str) -> Callable[[Reader, fx.Node], Value]:
    return lambda reader, node: unary(reader, code, reader.value(node.args[0]))


def sigmoid(reader: Reader, node: fx.Node) -> Value:
    """In int8 where its result has the levels that the kernels give."""
    x, levels = reader.value(node.args[0]), reader.is_read_as(node)
    in_int8 = x.levels is not None and SIGMOID.same(levels)
    return unary(reader, "LOGISTIC", x, levels if in_int8 else None)


def clamp(reader: Reader, node: fx.Node) -> Value:
    """ReLU and its kin; a ReLU of int8 values has their levels."""
    x, given = reader.value(node.args[0]), arguments(node)
    if node.target in (_ATEN.relu.default, _ATEN.relu_.default):
        return unary(reader, "RELU", x, x.levels)
    low, high = (given.get(name, given.get(other)) for name, other in (("min", "min_val"), ("max", "max_val")))
    if node.target is _ATEN.relu6.default or (low, high) == (0, 6):
        return unary(reader, "RELU6", x)
    for code, limit in (("MAXIMUM", low), ("MINIMUM", high)):
        if limit is not None:
            x = binary(reader, code, x, reader.value(float(limit)))
    return x


def _table(code: str, reader: Reader, node: fx.Node, options: Any = None) -> Value:
    """A function of a value: in int8, where the result is read so, the kernels look up or compute each level."""
    x = reader.value(node.args[0])
    return unary(reader, code, x, reader.is_read_as(node) if x.levels is not None else None, options)


def hardswish(reader: Reader, node: fx.Node) -> Value:
    """``x * relu6(x + 3) / 6``."""
    return _table("HARD_SWISH", reader, node)


def gelu(reader: Reader, node: fx.Node) -> Value:
    """GELU, exact or by tanh."""
    return _table("GELU", reader, node, schema.GeluOptionsT(approximate=arguments(node)["approximate"] == "tanh"))


def leaky_relu(reader: Reader, node: fx.Node) -> Value:
    """Leaky ReLU."""
    return _table("LEAKY_RELU", reader, node, schema.LeakyReluOptionsT(alpha=float(arguments(node)["negative_slope"])))


def elu(reader: Reader, node: fx.Node) -> Value:
    """ELU with its usual constants."""
    given = arguments(node)
    if (given["alpha"], given["scale"], given["input_scale"]) != (1, 1, 1):
        raise refuse(node, "constants other than 1")
    return _table("ELU", reader, node)


def silu(reader: Reader, node: fx.Node) -> Value:
    """``x * sigmoid(x)`` in float; in int8 it has been taken apart before."""
    x = reader.float_value(node.args[0])
    return binary(reader, "MUL", x, unary(reader, "LOGISTIC", x))


def hardsigmoid(reader: Reader, node: fx.Node) -> Value:
    """``relu6(x + 3) / 6``."""
    x = binary(reader, "ADD", reader.value(node.args[0]), reader.value(3.0), clamp="RELU6")
    return binary(reader, "MUL", x, reader.value(1 / 6))


def softplus(reader: Reader, node: fx.Node) -> Value:
    """``log(1 + exp(x))``, which does not overflow."""
    given = arguments(node)
    if given.get("beta", 1) != 1:
        raise refuse(node, f"beta {given['beta']}")
    return _softplus(reader, reader.float_value(node.args[0]))


def _softplus(reader: Reader, x: Value) -> Value:
    small = unary(reader, "EXP", unary(reader, "NEG", unary(reader, "ABS", x)))
    logarithm = unary(reader, "LOG", binary(reader, "ADD", small, reader.value(1.0)))
    return binary(reader, "ADD", unary(reader, "RELU", x), logarithm)


def mish(reader: Reader, node: fx.Node) -> Value:
    """``x * tanh(softplus(x))``."""
    x = reader.float_value(node.args[0])
    return binary(reader, "MUL", x, unary(reader, "TANH", _softplus(reader, x)))


def prelu(reader: Reader, node: fx.Node) -> Value:
    """A slope a channel below zero."""
    x, slope = reader.float_value(node.args[0]), reader.value(node.args[1])
    slope = reader.writer.reshape(slope, (slope.shape[0], *[1] * (x.rank - 2)))
    below = binary(reader, "MUL", binary(reader, "MINIMUM", x, reader.value(0.0)), slope)
    return binary(reader, "ADD", unary(reader, "RELU", x), below)


def power(reader: Reader, node: fx.Node) -> Value:
    """``x ** exponent``."""
    x, exponent = reader.float_value(node.args[0]), node.args[1]
    if exponent in (2, 0.5, -0.5):
        return unary(reader, {2: "SQUARE", 0.5: "SQRT", -0.5: "RSQRT"}[exponent], x)  # type: ignore[index]
    return binary(reader, "POW", x, reader.value(exponent))


def reciprocal(reader: Reader, node: fx.Node) -> Value:
    """``1 / x``."""
    return binary(reader, "DIV", reader.value(1.0), reader.value(node.args[0]))


TABLE = {
    **overloads(_binary("ADD"), "add", "add_"),
    **overloads(_binary("SUB"), "sub", "sub_"),
    **overloads(_binary("MUL"), "mul", "mul_"),
    **overloads(_binary("DIV"), "div", "div_"),
    **overloads(_binary("MAXIMUM"), "maximum"),
    **overloads(_binary("MINIMUM"), "minimum"),
    **overloads(reversed_difference, "rsub"),
    **overloads(sigmoid, "sigmoid", "sigmoid_"),
    **overloads(clamp, "relu", "relu_", "relu6", "hardtanh", "hardtanh_", "clamp", "clamp_", "clamp_min", "clamp_max"),
    **overloads(hardswish, "hardswish", "hardswish_"),
    **overloads(hardsigmoid, "hardsigmoid", "hardsigmoid_"),
    **overloads(gelu, "gelu"),
    **overloads(leaky_relu, "leaky_relu", "leaky_relu_"),
    **overloads(elu, "elu", "elu_"),
    **overloads(silu, "silu", "silu_"),
    **overloads(softplus, "softplus"),
    **overloads(mish, "mish", "mish_"),
    **overloads(prelu, "prelu", "_prelu_kernel"),
    **overloads(power, "pow"),
    **overloads(reciprocal, "reciprocal"),
    **{
        overload: _float(code)
        for code in ("TANH", "EXP", "LOG", "SQRT", "RSQRT", "ABS", "NEG", "ROUND", "FLOOR", "SIN", "COS", "SQUARE")
        for overload in overloads(None, code.lower())
    },
}
