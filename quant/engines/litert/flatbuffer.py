"""A ``.tflite`` file as it is put together: tensors, constants and operators of one graph."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

IDENTIFIER = b"TFL3"
_VERSION = 3
"""Of the format."""
_ALIGNMENT = 16
_VERSIONS = {"DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "RESHAPE": 1, "HARD_SWISH": 1, "ELU": 1}
"""Of operators, the version that first had int8, where it is not the second."""
_OF_4_BITS = 12
"""The version of linear layers that first had weights of 4 bits with a scale a channel."""
_TYPES = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.bool_): schema.TensorType.BOOL,
}


@dataclass(frozen=True, eq=False)
class Levels:
    """What an integer stands for: ``scale * (integer - zero_point)``; several scales are those along ``axis``."""

    scale: Any
    zero_point: int
    axis: int = 0

    def same(self, other: "Levels | None") -> bool:
        """Whether the same integers are the same values, of one scale each."""
        return other is not None and (float(self.scale), self.zero_point) == (float(other.scale), other.zero_point)


@dataclass(frozen=True, eq=False)
class Made:
    """An operator of the file: its name in the format, whether it reads int8 values and gives them, and its table."""

    code: str
    from_int8: bool
    int8: bool
    table: Any


class _Builder(flatbuffers.Builder):  # type: ignore[misc]  # flatbuffers has no types
    """Writes equal vectors once, such as the zero points of weights, and aligns all of them for any kernel."""

    def __init__(self) -> None:
        super().__init__(1 << 20)
        self.written: dict[tuple[str, bytes], Any] = {}

    def StartVector(self, size: int, count: int, alignment: int) -> Any:
        return super().StartVector(size, count, max(alignment, _ALIGNMENT) if size * count > _ALIGNMENT else alignment)

    def CreateNumpyVector(self, x: Any) -> Any:
        key = (x.dtype.str, x.tobytes())
        if key not in self.written:
            self.written[key] = super().CreateNumpyVector(x)
        return self.written[key]


class Model:
    """One graph in the making; tensors are known by their number."""

    def __init__(self) -> None:
        self.buffers = [schema.BufferT()]  # the first is that of tensors without constant values
        self.tensors: list[Any] = []
        self.operators: list[Made] = []
        self.codes: dict[tuple[str, int], int] = {}
        self.constants: dict[Any, int] = {}

    def tensor(self, shape: Sequence[int], dtype: Any, levels: Levels | None = None, buffer: int = 0) -> int:
        """A new tensor of this shape, as it lies in memory."""
        quantization = None
        if levels is not None:
            scale = np.atleast_1d(np.asarray(levels.scale, np.float32))
            zeros = np.full(len(scale), levels.zero_point, np.int64)
            quantization = schema.QuantizationParametersT(scale=scale, zeroPoint=zeros, quantizedDimension=levels.axis)
        one = schema.TensorT(
            shape=np.array(shape, np.int32), type=_TYPES[np.dtype(dtype)], buffer=buffer, quantization=quantization
        )
        one.hasRank = True
        self.tensors.append(one)
        return len(self.tensors) - 1

    def constant(self, array: Any, levels: Levels | None = None, bits: int = 8) -> int:
        """A tensor of these values; equal ones are one. ``bits``: 4 packs two integers into a byte."""
        array = np.ascontiguousarray(array)
        on = None if levels is None else (np.asarray(levels.scale).tobytes(), levels.zero_point, levels.axis)
        key = (array.dtype.str, array.shape, array.tobytes(), on, bits)
        if key not in self.constants:
            content = array.reshape(-1)
            if bits == 4:
                pairs = np.append(content, np.zeros(content.size % 2, np.int8)).astype(np.uint8).reshape(-1, 2) & 15
                content = pairs[:, 0] | (pairs[:, 1] << 4)
            self.buffers.append(schema.BufferT(data=content.view(np.uint8)))
            self.constants[key] = self.tensor(array.shape, array.dtype, levels, len(self.buffers) - 1)
            if bits == 4:
                self.tensors[-1].type = schema.TensorType.INT4
        return self.constants[key]

    def shape(self, tensor: int) -> tuple[int, ...]:
        """The shape of a tensor, as it lies in memory."""
        return tuple(int(size) for size in self.tensors[tensor].shape)

    def name(self, tensor: int, name: str) -> None:
        """Give a tensor a name; those of the file's inputs and outputs are what its users see."""
        self.tensors[tensor].name = name

    def operator(self, code: str, inputs: Sequence[int], output: int, options: Any = None) -> None:
        """Append an operator; ``code`` is its name in the format, ``options`` its table of options."""
        version = self._version(code, inputs, output)
        opcode = self.codes.setdefault((code, version), len(self.codes))
        kind = type(options).__name__.removesuffix("T") if options is not None else "NONE"
        table = schema.OperatorT(
            opcodeIndex=opcode,
            inputs=np.array(inputs, np.int32),
            outputs=np.array([output], np.int32),
            builtinOptionsType=getattr(schema.BuiltinOptions, kind),
            builtinOptions=options,
        )
        from_int8, int8 = (self.tensors[one].type == schema.TensorType.INT8 for one in (inputs[0], output))
        self.operators.append(Made(code, from_int8, int8, table))

    def _version(self, code: str, inputs: Sequence[int], output: int) -> int:
        """The version of an operator that first had what it is used for here."""
        types = {self.tensors[one].type for one in (*inputs, output) if one >= 0}
        if schema.TensorType.INT8 not in types:
            return 1
        if schema.TensorType.INT4 in types:
            return _OF_4_BITS
        if code == "CONV_2D":
            grouped = self.shape(inputs[0])[-1] != self.shape(inputs[1])[-1]
            return 6 if grouped else 3
        return _VERSIONS.get(code, 2)

    def save(self, path: Path, inputs: Sequence[int], outputs: Sequence[int], notes: dict[str, str]) -> None:
        """Write the file; ``notes`` become its metadata."""
        metadata = []
        for key, text in notes.items():
            self.buffers.append(schema.BufferT(data=np.frombuffer(text.encode(), np.uint8)))
            metadata.append(schema.MetadataT(name=key, buffer=len(self.buffers) - 1))
        self._drop_unread_(outputs)
        tensors = self._renumber_(inputs, outputs)
        codes = []
        for code, version in self.codes:
            number = getattr(schema.BuiltinOperator, code)
            old = min(number, schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES)
            codes.append(schema.OperatorCodeT(deprecatedBuiltinCode=old, builtinCode=number, version=version))
        graph = schema.SubGraphT(
            tensors=[self.tensors[tensor] for tensor in tensors],
            inputs=np.array([tensors[tensor] for tensor in inputs], np.int32),
            outputs=np.array([tensors[tensor] for tensor in outputs], np.int32),
            operators=[operator.table for operator in self.operators],
        )
        model = schema.ModelT(
            version=_VERSION, operatorCodes=codes, subgraphs=[graph], buffers=self.buffers, metadata=metadata
        )
        builder = _Builder()
        builder.Finish(model.Pack(builder), IDENTIFIER)
        path.write_bytes(bytes(builder.Output()))

    def _drop_unread_(self, outputs: Sequence[int]) -> None:
        """Forget the operators whose results nothing reads."""
        read, kept = set(outputs), []
        for operator in reversed(self.operators):
            if int(operator.table.outputs[0]) in read:
                read.update(int(tensor) for tensor in operator.table.inputs)
                kept.append(operator)
        self.operators = kept[::-1]

    def _renumber_(self, inputs: Sequence[int], outputs: Sequence[int]) -> dict[int, int]:
        """Number the tensors that are left anew in the operators; returns new numbers by old ones."""
        numbers: dict[int, int] = {tensor: place for place, tensor in enumerate(dict.fromkeys((*inputs, *outputs)))}
        for operator in self.operators:
            for ends in (operator.table.inputs, operator.table.outputs):
                ends[:] = [-1 if old < 0 else numbers.setdefault(int(old), len(numbers)) for old in ends]
        return numbers
