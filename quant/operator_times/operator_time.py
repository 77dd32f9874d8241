"""The time of one operator, and what kind of operator a name stands for."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

INT8, FLOAT, CONVERSION = "int8", "float", "conversion"
"""Number formats: what an operator computes in; a conversion goes from one to another, or to other levels of int8."""
CONVOLUTION, DEPTHWISE, LINEAR, OTHER = "convolution", "depthwise", "linear", "other"
MOVEMENT, OUTSIDE = "data movement", "outside"
KINDS = (
    CONVOLUTION, DEPTHWISE, LINEAR, "normalization", "activation", "elementwise", "pool", "resize", MOVEMENT,
    CONVERSION, OTHER, OUTSIDE,
)  # fmt: skip
"""Kinds of operators. 1x1 convolutions are linear: XNNPACK runs them as fully connected layers, and names them so.

Outside is what of a forward is in no operator: the framework's own work, and what the profiler costs.
"""

WARMUP = 3
"""Forwards that are run and not counted, on every engine."""
_WORDS = (
    (CONVERSION, ("quantize", "convert", "cast")),
    ("resize", ("resize", "upsample", "interpolate")),
    (DEPTHWISE, ("dwconv", "depthwise")),
    (CONVOLUTION, ("conv",)),
    ("normalization", ("norm",)),
    (LINEAR, ("gemm", "matmul", "matrix", "linear", "fullyconnected", "attention", "addmm", "bmm")),
    ("pool", ("pool", "mean")),
    ("elementwise", ("add", "mul", "sub", "div", "square", "sqrt", "abs", "pow")),
    (
        "activation",
        ("sigmoid", "logistic", "silu", "swish", "relu", "elu", "hardtanh", "tanh", "clamp", "clip", "softmax"),
    ),
    (
        MOVEMENT,
        (
            "cat", "copy", "clone", "contiguous", "transpose", "permute", "reshape", "view", "flatten", "squeeze",
            "slice", "split", "chunk", "select", "narrow", "pad", "reorder", "gather", "expand", "shuffle",
            "depthtospace", "spacetodepth", "dim_order",
        ),
    ),
)  # fmt: skip
"""What names of a kind have in them; the first that fits counts."""


@dataclass(frozen=True)
class OperatorTime:
    """One operator of a network: microseconds and calls a forward.

    ``operator`` is what the engine calls it, ``kind`` one of ``KINDS``, ``number_format`` int8, float or conversion,
    and nothing for what is outside of operators;
    ``layer`` is the module or node that it belongs to, the engine's own number of it, or empty where none is known.
    """

    operator: str
    kind: str
    number_format: str
    layer: str
    us: float
    calls: float = 1.0


def kind_of_name(operator: str) -> str:
    """The kind of an operator by its name alone, such as ``aten::add``, ``QLinearAdd`` or ``Add (ND)``."""
    name = re.sub(r"\(.*?\)|[\s_]", "", operator.rpartition("::")[2]).lower().removeprefix("qlinear")
    return next((kind for kind, words in _WORDS if any(word in name for word in words)), OTHER)


def kind_of_convolution(channels: int, groups: int, kernel: Iterable[int]) -> str:
    """Depthwise, linear (1x1), or a convolution; ``channels`` of its input."""
    if groups == channels > 1:
        return DEPTHWISE
    return LINEAR if groups == 1 and all(side == 1 for side in kernel) else CONVOLUTION


def of_quieter_half(forwards: Sequence[tuple[float, Sequence[OperatorTime]]]) -> list[OperatorTime]:
    """Means over the faster half of several forwards, slowest operator first: they add up to the time of a forward.

    Of each forward its microseconds are given, and its operators; the rest is an entry of the kind outside. Operators
    of one name, layer and format are one entry, with the sum of their calls. What else runs on the machine hits an
    operator the more, the longer it takes: medians of each operator would leave it out of the short ones alone.
    """
    quieter = sorted(forwards, key=lambda forward: forward[0])[: (len(forwards) + 1) // 2]
    found: dict[OperatorTime, OperatorTime] = {}
    for whole_us, operators in quieter:
        outside = OperatorTime("", OUTSIDE, "", "", max(whole_us - sum(one.us for one in operators), 0.0))
        for one in (*operators, outside):
            key = replace(one, us=0.0, calls=0.0)
            known = found.get(key, key)
            us, calls = (known.us + one.us / len(quieter), known.calls + one.calls / len(quieter))
            found[key] = replace(key, us=us, calls=calls)
    return sorted(found.values(), key=lambda one: -one.us)


def share_of(number_format: str, operators: Sequence[OperatorTime]) -> float:
    """The part of a forward that operators of this format take; 0 where all is nothing."""
    total = sum(one.us for one in operators)
    return sum(one.us for one in operators if one.number_format == number_format) / total if total else 0.0
