"""The network as ``torch.export`` gives it, an operator after the other, and what has become of its values so far."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from quant.engines.decomposed import QUANTIZE
from quant.engines.litert.flatbuffer import Levels
from quant.engines.litert.values import Value, Writer, constant
from quant.graph import UnsupportedNetworkError

_ATEN = torch.ops.aten
_RELUS = (_ATEN.relu.default, _ATEN.relu_.default)
_CLAMPS = (_ATEN.hardtanh.default, _ATEN.hardtanh_.default, _ATEN.clamp.default, _ATEN.relu6.default)


def arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of an operator's call by name, with its defaults."""
    assert isinstance(node.target, torch._ops.OpOverload)
    named = {}
    for place, argument in enumerate(node.target._schema.arguments):
        default = argument.default_value if argument.has_default_value() else None
        named[argument.name] = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name, default)
    return named


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """The shape of an operator's result."""
    return tuple(int(size) for size in node.meta["val"].shape)


def levels_of(node: fx.Node) -> Levels:
    """Those of a rounding, or of what takes it back."""
    scale: Any = node.args[1]
    zero_point: Any = node.args[2]
    return Levels(float(scale), int(zero_point))


def refuse(node: fx.Node, why: str) -> UnsupportedNetworkError:
    """The error for an operator that cannot be written."""
    return UnsupportedNetworkError(f"litert has no form for {node.target}: {why}")


class Reader:
    """What has been read of the network, and the writer of its file."""

    def __init__(self) -> None:
        self.writer = Writer()
        self.values: dict[fx.Node, Any] = {}

    def value(self, argument: Any) -> Value:
        """A value of the network, or a number as a constant."""
        if isinstance(argument, fx.Node):
            found = self.values[argument]
            assert isinstance(found, Value)
            return found
        return constant(np.array(argument, np.float32))

    def float_value(self, argument: Any) -> Value:
        """The same in float."""
        return self.writer.as_float(self.value(argument))

    def is_read_as(self, node: fx.Node) -> Levels | None:
        """The levels to which the value is rounded, where nothing else becomes of it."""
        readers = list(node.users)
        if len(readers) != 1 or readers[0].target is not QUANTIZE:
            return None
        return levels_of(readers[0])

    def fused(self, node: fx.Node) -> tuple[fx.Node, str]:
        """The clamp that an operator can do itself, as node and name in the format; the node itself and NONE if none.

        A ReLU that stands behind a rounding to its own levels clamps the same integers in front of it.
        """
        reader = _only_reader(node)
        if reader is None:
            return node, "NONE"
        if name := _clamp(reader):
            return reader, name
        behind = _only_reader(reader) if reader.target is QUANTIZE else None
        behind = _only_reader(behind) if behind is not None else None
        if behind is not None and behind.target in _RELUS:
            levels, after = self.is_read_as(node), self.is_read_as(behind)
            if levels is not None and levels.same(after):
                return behind, "RELU"
        return node, "NONE"


def _only_reader(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _clamp(node: fx.Node) -> str | None:
    if node.target in _RELUS:
        return "RELU"
    if node.target in _CLAMPS:
        limits = tuple(arguments(node).get(name) for name in ("min_val", "max_val", "min", "max"))
        found = tuple(limit for limit in limits if limit is not None)
        return {(0, 6): "RELU6", (-1, 1): "RELU_N1_TO_1"}.get(found)
    return None


def array_of(tensor: Tensor) -> Any:
    """A constant as an array; what is float in float32."""
    kept = tensor.detach().cpu()
    return (kept.float() if kept.is_floating_point() else kept).contiguous().numpy()
