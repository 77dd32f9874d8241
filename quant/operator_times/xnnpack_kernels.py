"""The kernels of XNNPACK, which it names without their types, beside the operators of the file that it runs."""

from collections.abc import Sequence

from quant.operator_times.operator_time import (
    CONVERSION,
    CONVOLUTION,
    FLOAT,
    INT8,
    LINEAR,
    OperatorTime,
    kind_of_name,
)

_FUSED = "Invalid Unary Op"
"""What XNNPACK calls a table of 256 values into which it has fused int8 operators."""
_AHEAD = 6
"""So many operators of a program may be fused into others in a row."""


def found_kernel(nodes: Sequence[tuple[str, str]], kernel: str, place: int) -> tuple[int, OperatorTime]:
    """The operator that a kernel runs, without its time, and the place behind it in ``nodes`` (names and formats).

    The file's order is kept. A fused kernel stands for the node at its place and some of those behind it.
    """
    ahead = nodes[place : place + _AHEAD]
    kinds = [kind_of_name(kind) for kind, _ in ahead]
    if kernel.startswith(_FUSED) and ahead:
        number_format = CONVERSION if kinds[0] == CONVERSION else INT8
        return place + 1, OperatorTime(kernel, kinds[0], number_format, "", 0.0)
    kind = _kind(kernel)
    fitting = [index for index, one in enumerate(kinds) if _alike(one, kind)]
    if not fitting:  # XNNPACK's own addition: what it moves is what was there before
        before = nodes[place - 1][1] if place else FLOAT
        return place, OperatorTime(kernel, kind, CONVERSION if kind == CONVERSION else before, "", 0.0)
    number_format = CONVERSION if kind == CONVERSION else ahead[fitting[0]][1]
    return place + fitting[0] + 1, OperatorTime(kernel, kind, number_format, "", 0.0)


def _kind(kernel: str) -> str:
    """A convolution by matrix product alone is one of 1x1; all others gather their pixels (IGEMM)."""
    return LINEAR if kernel.startswith("Convolution") and kernel.endswith(" GEMM") else kind_of_name(kernel)


def _alike(of_node: str, of_kernel: str) -> bool:
    """Whether XNNPACK may run a node of one kind as a kernel of the other: 1x1 convolutions are fully connected."""
    return of_node == of_kernel or (of_node == CONVOLUTION and of_kernel == LINEAR)
