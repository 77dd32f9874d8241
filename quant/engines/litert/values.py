"""Values of the network as tensors of a ``.tflite`` file, whose axes may lie in another order than PyTorch's.

The kernels want channels last. An order of axes is kept beside each tensor, so that moving axes about costs nothing
until an operator asks for a certain order.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from quant.engines.litert.flatbuffer import Levels, Model

IMAGE = (0, 2, 3, 1)
"""The order of axes of an image in memory: N x H x W x C."""


@dataclass(frozen=True, eq=False)
class Value:
    """A value of the network: its shape as in PyTorch, its axes in the order of memory, its levels where it is int8.

    ``tensor`` is its number in the file, or ``array`` what it is, in PyTorch's order, where it is a constant.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]
    levels: Levels | None = None
    tensor: int = -1
    array: Any = None
    bits: int = 8

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)


def constant(array: Any, levels: Levels | None = None) -> Value:
    """A constant of the network."""
    return Value(tuple(array.shape), tuple(range(array.ndim)), levels, array=array)


class Writer:
    """The file in the making, and what was put into it: the same value in the same form is written once."""

    def __init__(self) -> None:
        self.model = Model()
        self.orders: dict[tuple[int, tuple[int, ...]], int] = {}
        self.floats: dict[int, int] = {}
        self.reshaped: dict[int, int] = {}

    def input(self, shape: tuple[int, ...]) -> Value:
        """The input of the network, an image of float values."""
        tensor = self.model.tensor([shape[axis] for axis in IMAGE], np.float32)
        return Value(shape, IMAGE, tensor=tensor)

    def integers(self, *numbers: Any) -> int:
        """A constant tensor of whole numbers, as operators take shapes and axes."""
        return self.model.constant(np.array(numbers, np.int32))

    def emit(
        self,
        code: str,
        inputs: Sequence[int],
        shape: Sequence[int],
        order: tuple[int, ...],
        levels: Levels | None = None,
        options: Any = None,
        dtype: Any = None,
    ) -> Value:
        """Append an operator, and give its result of this ``shape`` (as in PyTorch), which lies in this ``order``."""
        kind = dtype if dtype is not None else np.float32 if levels is None else np.int8
        tensor = self.model.tensor([shape[axis] for axis in order], kind, levels)
        self.model.operator(code, inputs, tensor, options)
        return Value(tuple(shape), order, levels, tensor)

    def stored(self, value: Value, order: Sequence[int]) -> int:
        """The tensor of the value with its axes in this order."""
        order = tuple(order)
        if value.array is not None:
            levels = value.levels
            if levels is not None and np.ndim(levels.scale):
                levels = replace(levels, axis=order.index(levels.axis))
            array = value.array.transpose(order)
            if array.dtype not in (np.int8, np.bool_):
                array = array.astype(np.float32)
            return self.model.constant(array, levels, value.bits)
        if order == value.order:
            return value.tensor
        key = (value.tensor, order)
        if key not in self.orders:
            flat = self._flat(value, order)
            self.orders[key] = self._shaped(flat, value.levels, value.shape, order)
        return self.orders[key]

    def _flat(self, value: Value, order: tuple[int, ...]) -> int:
        """A tensor that lies in memory as the value in this order does, if in another shape."""
        long = [[axis for axis in axes if value.shape[axis] != 1] for axes in (value.order, order)]
        if long[0] == long[1]:
            return value.tensor
        places = [value.order.index(axis) for axis in order]
        inputs = [value.tensor, self.integers(*places)]
        return self.emit("TRANSPOSE", inputs, value.shape, order, value.levels, schema.TransposeOptionsT()).tensor

    def _shaped(self, tensor: int, levels: Levels | None, shape: Sequence[int], order: tuple[int, ...]) -> int:
        tensor = self.reshaped.get(tensor, tensor)
        sizes = tuple(shape[axis] for axis in order)
        if self.model.shape(tensor) == sizes:
            return tensor
        options = schema.ReshapeOptionsT(newShape=np.array(sizes, np.int32))
        found = self.emit("RESHAPE", [tensor, self.integers(*sizes)], shape, order, levels, options).tensor
        self.reshaped[found] = tensor
        return found

    def as_float(self, value: Value) -> Value:
        """The value in float."""
        if value.levels is None:
            return value
        order = value.order
        tensor = self.stored(value, order)
        if tensor not in self.floats:
            options = schema.DequantizeOptionsT()
            self.floats[tensor] = self.emit("DEQUANTIZE", [tensor], value.shape, order, None, options).tensor
        return Value(value.shape, order, tensor=self.floats[tensor])

    def rounded(self, value: Value, levels: Levels) -> Value:
        """The value in int8 of these levels."""
        if value.levels is not None and levels.same(value.levels):
            return value
        if value.array is not None:
            integers = np.clip(np.rint(value.array / np.float32(levels.scale)) + levels.zero_point, -128, 127)
            return constant(integers.astype(np.int8), levels)
        return self.emit("QUANTIZE", [value.tensor], value.shape, value.order, levels, schema.QuantizeOptionsT())

    def permute(self, value: Value, axes: Sequence[int]) -> Value:
        """``torch.permute``: nothing moves."""
        if value.array is not None:
            return constant(value.array.transpose(axes), value.levels)
        shape = tuple(value.shape[axis] for axis in axes)
        return replace(value, shape=shape, order=tuple(list(axes).index(axis) for axis in value.order))

    def reshape(self, value: Value, shape: Sequence[int]) -> Value:
        """``torch.reshape``: axes that are only split or joined stay where they are."""
        shape = tuple(shape)
        if shape == value.shape:
            return value
        if value.array is not None:
            return constant(value.array.reshape(shape), value.levels)
        groups = sorted(_groups(value.shape, shape), key=lambda group: _place(value, group[0]))
        old = tuple(axis for group in groups for axis in group[0])
        new = tuple(axis for group in groups for axis in group[1])
        tensor = self._shaped(self._flat(value, old), value.levels, shape, new)
        return replace(value, shape=shape, order=new, tensor=tensor)


def _place(value: Value, axes: Sequence[int]) -> int:
    """Where in memory the first of these axes lies; those of one value count only where there are no others."""
    long = [axis for axis in axes if value.shape[axis] != 1]
    return min((value.order.index(axis) for axis in long or axes), default=-1)


def _groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The axes of two shapes of one size in the smallest groups, in turns, that have the same size."""
    groups: list[tuple[list[int], list[int]]] = []
    left, right = 0, 0
    while left < len(before) and right < len(after):
        group = ([left], [right])
        sizes = [before[left], after[right]]
        left, right = left + 1, right + 1
        while sizes[0] != sizes[1]:
            if sizes[0] < sizes[1]:
                sizes[0], left = sizes[0] * before[left], left + 1
                group[0].append(left - 1)
            else:
                sizes[1], right = sizes[1] * after[right], right + 1
                group[1].append(right - 1)
        groups.append(group)
    rest = (list(range(left, len(before))), list(range(right, len(after))))  # axes of one value
    if not groups:
        return [rest]
    groups[-1] = (groups[-1][0] + rest[0], groups[-1][1] + rest[1])
    return groups


def elements(shape: Sequence[int]) -> int:
    """The number of values of a shape."""
    return math.prod(shape)
