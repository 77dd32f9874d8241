"""Time by operator of LiteRT: its profiler, through the C interface, as its interpreter for Python has none.

The interface is that of google-ai-edge/LiteRT, litert/c; handles and types of tensors stay closed here. What runs in
XNNPACK is named by its kernels, and looked up in the file; times have whole microseconds.
"""

import ctypes
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from quant.operator_times.operator_time import (
    CONVERSION,
    FLOAT,
    INT8,
    WARMUP,
    OperatorTime,
    kind_of_name,
    of_quieter_half,
)
from quant.operator_times.xnnpack_kernels import found_kernel

_CPU, _TO_WRITE = 1, 1
"""Of LiteRtHwAccelerators and of LiteRtTensorBufferLockMode."""
_TYPE_BYTES = 1024
"""More than a LiteRtRankedTensorType has."""
_ROW = re.compile(r"^\s*(\S.*?)\s+[\d.]+\s+[\d.]+\s+([\d.]+)\s+[\d.]+%\s+[\d.]+%\s+[\d.-]+\s+\d+\s+(\S.*)$")
"""Of the profiler's table: what it is, its milliseconds, and its name."""
_IN_XNNPACK = "Delegate/"


def operator_times(path: Path, image: Tensor, threads: int, forwards: int) -> list[OperatorTime]:
    """Operators of a ``.tflite`` file for ``image`` (1xCxHxW), those outside of XNNPACK by their names in the format.

    Raises RuntimeError where the library does not do what it is asked for.
    """
    nodes = list(_nodes(path))
    with _profiled(path, image, threads) as forward:
        found = [forward() for _ in range(WARMUP + forwards)]
    return of_quieter_half([(us, list(_operators(table, nodes))) for us, table in found[WARMUP:]])


def _operators(table: str, nodes: Sequence[tuple[str, str]]) -> Iterator[OperatorTime]:
    """Those of one forward, in their order."""
    place, rows = 0, map(_ROW.match, table.partition("Top by Computation Time")[0].splitlines())
    for number, row in enumerate(row for row in rows if row is not None):
        operator, us, name = row.group(1), 1e3 * float(row.group(2)), row.group(3)
        if operator.startswith(_IN_XNNPACK):
            place, one = found_kernel(nodes, operator.removeprefix(_IN_XNNPACK), place)
        else:  # LiteRT's own kernel for the operator of this number
            index, kind = int(name.rpartition(":")[2]), kind_of_name(operator)
            number_format = CONVERSION if kind == CONVERSION else nodes[index][1]
            place, one = index + 1, OperatorTime(operator, kind, number_format, "", 0.0)
        yield replace(one, layer=f"#{number}", us=us)


def _nodes(path: Path) -> Iterator[tuple[str, str]]:
    """The operators of a file in their order: names of the format, and whether their results are int8."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes()))
    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    (graph,) = model.subgraphs
    for operator in graph.operators:
        result = graph.tensors[operator.outputs[0]].type
        yield (
            names[model.operatorCodes[operator.opcodeIndex].builtinCode],
            INT8 if result == schema.TensorType.INT8 else FLOAT,
        )


@contextmanager
def _profiled(path: Path, image: Tensor, threads: int) -> Iterator[Any]:
    """A function that runs the file once, and gives the microseconds and the profiler's table of that."""
    library = _Library()
    with ExitStack() as stack:

        def made(name: str, *arguments: Any) -> ctypes.c_void_p:
            """What a function makes, which the block's end destroys."""
            handle = ctypes.c_void_p()
            library.call(f"Create{name}", *arguments, ctypes.byref(handle))
            stack.callback(library.destroy, re.sub(r"^Managed|From\w+$", "", name), handle)
            return handle

        environment = made("Environment", 0, None)
        model = made("ModelFromFile", environment, str(path).encode())
        options = made("Options")
        library.call("SetOptionsHardwareAccelerators", options, _CPU)
        for name, text in (
            ("runtime_options_string", "enable_profiling = true"),
            ("xnnpack", f"num_threads = {threads}"),
        ):
            library.add_option(options, name, text)
        compiled = made("CompiledModel", environment, model, options)
        profiler, signature = ctypes.c_void_p(), ctypes.c_void_p()
        library.call("CompiledModelGetProfiler", compiled, ctypes.byref(profiler))
        library.call("GetModelSignature", model, ctypes.c_size_t(0), ctypes.byref(signature))

        def buffers(side: str) -> Any:
            count = ctypes.c_size_t()
            library.call(f"GetNumSignature{side}s", signature, ctypes.byref(count))
            handles = []
            for place in map(ctypes.c_size_t, range(count.value)):
                tensor, needs = ctypes.c_void_p(), ctypes.c_void_p()
                kind = ctypes.create_string_buffer(_TYPE_BYTES)
                library.call(f"GetSignature{side}TensorByIndex", signature, place, ctypes.byref(tensor))
                library.call("GetRankedTensorType", tensor, kind)
                call = f"GetCompiledModel{side}BufferRequirements"
                library.call(call, compiled, ctypes.c_size_t(0), place, ctypes.byref(needs))
                handles.append(made("ManagedTensorBufferFromRequirements", environment, kind, needs).value)
            return (ctypes.c_void_p * count.value)(*handles)

        inputs, outputs = buffers("Input"), buffers("Output")
        library.fill(inputs[0], np.ascontiguousarray(image.numpy().transpose(0, 2, 3, 1), np.float32))

        def forward() -> tuple[float, str]:
            library.call("ResetProfiler", profiler)
            library.call("StartProfiler", profiler)
            ends = [part for one in (inputs, outputs) for part in (ctypes.c_size_t(len(one)), one)]
            started = time.perf_counter()
            library.call("RunCompiledModel", compiled, ctypes.c_size_t(0), *ends)
            us = 1e6 * (time.perf_counter() - started)
            library.call("StopProfiler", profiler)
            return us, library.summary(profiler, compiled)

        yield forward


class _Library:
    """``libLiteRt.so`` of the package."""

    def __init__(self) -> None:
        spec = find_spec("ai_edge_litert")
        assert spec is not None
        assert spec.origin is not None
        self.library = ctypes.CDLL(str(Path(spec.origin).with_name("libLiteRt.so")))
        self.kept: list[Any] = []
        self.keep = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None)

    def call(self, name: str, *arguments: Any) -> None:
        """Raises RuntimeError with the status where it is not 0."""
        status = getattr(self.library, f"LiteRt{name}")(*arguments)
        if status:
            raise RuntimeError(f"LiteRt{name} failed with status {status}")

    def destroy(self, name: str, handle: ctypes.c_void_p) -> None:
        """Let go of what was made."""
        getattr(self.library, f"LiteRtDestroy{name}")(handle)

    def add_option(self, options: ctypes.c_void_p, name: str, text: str) -> None:
        """Options of a part of LiteRT, as the lines of TOML in which it takes them."""
        content, option = ctypes.create_string_buffer(f"{text}\n".encode()), ctypes.c_void_p()
        self.kept.append(content)  # until this object goes
        pointer = ctypes.cast(content, ctypes.c_void_p)
        self.call("CreateOpaqueOptions", name.encode(), pointer, self.keep, ctypes.byref(option))
        self.call("AddOpaqueOptions", options, option)

    def fill(self, buffer: int, values: Any) -> None:
        """Write values into a tensor."""
        handle, size, address = ctypes.c_void_p(buffer), ctypes.c_size_t(), ctypes.c_void_p()
        self.call("GetTensorBufferSize", handle, ctypes.byref(size))
        if size.value < values.nbytes:
            raise RuntimeError(f"LiteRT takes {size.value} bytes, and not {values.nbytes}")
        self.call("LockTensorBuffer", handle, ctypes.byref(address), _TO_WRITE)
        ctypes.memmove(address, values.ctypes.data, values.nbytes)
        self.call("UnlockTensorBuffer", handle)

    def summary(self, profiler: ctypes.c_void_p, compiled: ctypes.c_void_p) -> str:
        """The profiler's table."""
        text = ctypes.c_void_p()
        self.call("GetProfileSummary", profiler, compiled, ctypes.byref(text))
        found = ctypes.string_at(text.value or 0).decode() if text.value else ""
        ctypes.CDLL(None).free(text)
        return found
