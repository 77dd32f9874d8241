"""Time by operator of ONNX Runtime: its own profile of a session, with the graph that the session has made."""

import json
import tempfile
from pathlib import Path
from typing import Any

from torch import Tensor

from quant.engines import onnxruntime as engine
from quant.operator_times.operator_time import (
    CONVERSION,
    CONVOLUTION,
    FLOAT,
    INT8,
    WARMUP,
    OperatorTime,
    kind_of_convolution,
    kind_of_name,
    of_quieter_half,
)

_TIMED = "_kernel_time"
_INTEGER = ("QLinear", "QGemm", "ConvInteger", "MatMulInteger", "QAttention")
_BYTES = ("uint8", "int8")


def operator_times(path: Path, image: Tensor, threads: int, forwards: int) -> list[OperatorTime]:
    """Operators of an ONNX file for ``image`` (1xCxHxW), in a session of its own with the settings of ``Runner``."""
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        session = engine.start_session(path, threads, Path(folder))
        for _ in range(WARMUP + forwards):
            session.run(None, {engine.INPUT: image.numpy()})
        events = json.loads(Path(session.end_profiling()).read_text())
        graph = onnx.load(Path(folder) / engine.OPTIMIZED).graph
    nodes = {node.name: node for node in graph.node}
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    found: list[tuple[float, list[OperatorTime]]] = []
    for event in sorted(events, key=lambda event: float(event["ts"])):
        if event["name"] == "model_run":
            found.append((float(event["dur"]), []))
        elif event["cat"] == "Node" and event["name"].endswith(_TIMED):
            found[-1][1].append(_operator_time(event, nodes.get(event["name"].removesuffix(_TIMED)), shapes))
    return of_quieter_half(found[WARMUP:])


def _operator_time(event: Any, node: Any, shapes: dict[str, tuple[int, ...]]) -> OperatorTime:
    """``node`` is that of the graph, None where it has none of this name."""
    operator, results = str(event["args"]["op_name"]), event["args"]["output_type_shape"]
    kind = kind_of_name(operator)
    if kind == CONVOLUTION:
        kind = _kind_of_convolution(node, shapes)
    int8 = operator.startswith(_INTEGER) or any(name in _BYTES for result in results for name in result)
    number_format = CONVERSION if kind == CONVERSION else INT8 if int8 else FLOAT
    layer = event["name"].removesuffix(_TIMED).partition("_token_")[0]  # what makes a name unique
    return OperatorTime(operator, kind, number_format, layer, float(event["dur"]))


def _kind_of_convolution(node: Any, shapes: dict[str, tuple[int, ...]]) -> str:
    """By the weight (out x in / groups x h x w), which is the only constant of four dimensions."""
    weight = next((shapes[name] for name in node.input if len(shapes.get(name, ())) > 2), ()) if node else ()
    if not weight:
        return CONVOLUTION
    groups = next((one.i for one in node.attribute if one.name == "group"), 1)
    return kind_of_convolution(weight[1] * groups, groups, weight[2:])
