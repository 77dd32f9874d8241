"""Time by operator of XNNPACK: what its profiler tells through ExecuTorch's event tracer, read from an ETDump.

XNNPACK names an operator by its kernel and leaves the types of most out; they are looked up in the programs of the
file. Its own clock has whole microseconds.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from quant.engines.xnnpack import use_threads
from quant.inspection.on_xnnpack import BYTES, delegated
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

_CALL, _RUN, _WHOLE = "OPERATOR_CALL", "Execute", "Method::execute"


def operator_times(path: Path, image: Tensor, threads: int, forwards: int) -> list[OperatorTime]:
    """Operators of a ``.pte`` file for ``image`` (1xCxHxW), those outside of XNNPACK included.

    Raises RuntimeError where ExecuTorch was built without its event tracer.
    """
    from executorch.devtools.etdump.serialize import deserialize_from_etdump_flatcc
    from executorch.extension.pybindings import portable_lib

    use_threads(threads)
    module = portable_lib._load_for_executorch(str(path), enable_etdump=True)
    for _ in range(WARMUP + forwards):
        module.forward((image.contiguous(),))
    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder) / "etdump"
        module.write_etdump_result_to_file(str(dump))
        if not module.has_etdump() or not dump.is_file():
            raise RuntimeError("this ExecuTorch was built without its event tracer")
        runs = [run for run in deserialize_from_etdump_flatcc(dump.read_bytes()).run_data if run.name == _RUN]
    program = _Program(path)
    found = []
    for run in runs[WARMUP:]:
        events = [event.profile_event for event in run.events if event.profile_event]
        whole_us = next(_us(event) for event in events if event.name == _WHOLE)
        found.append((whole_us, list(program.operators(events))))
    return of_quieter_half(found)


def _us(event: Any) -> float:
    return float(event.end_time - event.start_time) / 1e3


class _Program:
    """What a file runs: ExecuTorch's own operators by instruction, and XNNPACK's, each with its number format."""

    def __init__(self, path: Path) -> None:
        from executorch.exir._serialize._program import deserialize_pte_binary

        program = deserialize_pte_binary(path.read_bytes()).program
        plan = next(plan for plan in program.execution_plan if plan.name == "forward")
        self.own: dict[int, str] = {}
        self.nodes: list[tuple[str, str]] = []
        for number, instruction in enumerate(plan.chains[0].instructions):
            called = instruction.instr_args
            if hasattr(called, "op_index"):
                self.own[number] = plan.operators[called.op_index].name
            elif hasattr(called, "delegate_index"):
                place = plan.delegates[called.delegate_index].processed.index
                nodes, types = delegated(bytes(program.backend_delegate_data[place].data))
                self.nodes += [(kind.removeprefix("XNN"), _format(node, types)) for kind, _, node in nodes]

    def operators(self, events: Sequence[Any]) -> Iterator[OperatorTime]:
        """Those of one forward, in their order."""
        place = 0
        for event in events:
            us = _us(event)
            if event.name == _CALL:
                name = self.own.get(event.instruction_id, _CALL)
                kind = kind_of_name(name)
                yield OperatorTime(name, kind, CONVERSION if kind == CONVERSION else FLOAT, "", us)
            elif event.delegate_debug_id_str:
                operator, _, number = event.delegate_debug_id_str.rpartition(" #")
                place, found = found_kernel(self.nodes, operator, place)
                yield replace(found, layer=f"#{number}", us=us)


def _format(node: dict[str, Any], types: dict[int, str]) -> str:
    """That of its (first) result."""
    result = node["output_id"] if "output_id" in node else node.get("output1_id", -1)
    return INT8 if types.get(result) in BYTES else FLOAT
