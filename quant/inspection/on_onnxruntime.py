"""What ONNX Runtime runs of a network: from the graph that its session has left after all optimizations."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from quant.engines import onnxruntime as engine
from quant.engines.decomposed import QUANTIZE, decompose
from quant.engines.outputs import flatten_outputs_
from quant.graph import SPLITS
from quant.inspection.operators import OPERATOR, marked, operator_nodes
from quant.inspection.placement import FLOAT, FOLDED, INT8, Placement

_ROUNDINGS = ("QuantizeLinear", "DequantizeLinear")


@torch.no_grad()
def on_onnxruntime(prepared: fx.GraphModule, image: Tensor) -> Placement:
    """Write a prepared network for an image like ``image`` (1xCxHxW), load it, and read what the session runs.

    What has no quantizer behind it is float in the file already. Of the others the file's nodes in front of the
    quantizer are looked for in the session's graph, which keeps their names.
    """
    import onnx

    plain = decompose(marked(prepared), engine.SIGNED)
    roundings = [node for node in plain.graph.nodes if node.target is QUANTIZE]
    with tempfile.TemporaryDirectory() as folder:
        file, optimized = Path(folder) / engine.FILE, Path(folder) / "optimized.onnx"
        engine.write(plain, image, file, flatten_outputs_(plain, image))
        _optimize(file, optimized)
        written, run = onnx.load(file).graph, onnx.load(optimized).graph
    producers = {value: node for node in written.node for value in node.output}
    quantizers = _numbered(written, roundings)
    left, in_int8 = _left(run)
    where = {node.name: FLOAT for node in operator_nodes(prepared)}
    for number, rounding in enumerate(roundings):
        operator, quantizer = rounding.args[0].meta.get(OPERATOR), quantizers.get(number)
        if operator is None:  # the rounding of the network's input
            continue
        if quantizer is None:  # the exporter has found that the value is another one once more
            where[operator] = FOLDED
            continue
        names = {node.name for node in _between(quantizer, producers)}
        if quantizer.name in left:
            where[operator] = FLOAT
        elif names & left:
            where[operator] = INT8 if names & in_int8 else FLOAT
        else:
            where[operator] = FOLDED
    for node in operator_nodes(prepared):
        if node.target in SPLITS:  # it has no quantizer itself, its parts have
            where[node.name] = FLOAT if any(where.get(part.name) == FLOAT for part in node.users) else INT8
    constants = {tensor.name for tensor in run.initializer}
    conversions = [node for node in run.node if node.op_type in _ROUNDINGS and node.input[0] not in constants]
    return Placement("onnxruntime", where, len(conversions))


def _optimize(file: Path, optimized: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.optimized_model_filepath = str(optimized)
    onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _numbered(written: Any, roundings: list[fx.Node]) -> dict[int, Any]:
    """The file's QuantizeLinear nodes by which of the ``roundings`` they are: the exporter numbers their outputs.

    Raises RuntimeError where the scale of one is not that of its rounding.
    """
    import onnx

    scales = {one.name: onnx.numpy_helper.to_array(one).ravel() for one in written.initializer}
    numbered: dict[int, Any] = {}
    for node in written.node:
        if node.op_type != "QuantizeLinear":
            continue
        suffix = node.output[0].removeprefix("quantize_per_tensor").removeprefix("_")
        number = int(suffix) if suffix.isdecimal() else 0
        if number >= len(roundings) or not np.array_equal(scales[node.input[1]], _float32(roundings[number].args[1])):
            raise RuntimeError(f"{node.output[0]} of the ONNX file cannot be followed to an operator")
        numbered[number] = node
    return numbered


def _float32(scale: Any) -> Any:
    return np.array([scale], np.float32)


def _left(graph: Any) -> tuple[set[str], set[str]]:
    """The names, in the file, of all nodes that the session runs, and of those whose result is int8."""
    import onnx

    bytes_ = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    int8 = {tensor.name for tensor in graph.initializer if tensor.data_type in bytes_}
    left, in_int8 = set(), set()
    for node in graph.node:
        name = node.name.partition("_token_")[0]  # what ONNX Runtime adds to a name that it makes unique
        left.add(name)
        keeps = node.op_type != "DequantizeLinear" and "Integer" not in node.op_type and node.input[0] in int8
        if node.op_type.startswith("Q") or keeps:  # QuantizeLinear, QLinearConv, QGemm and their kin
            int8.update(node.output)
            in_int8.add(name)
    return left - {""}, in_int8 - {""}


def _between(quantizer: Any, producers: dict[str, Any]) -> Iterator[Any]:
    """The nodes of the file whose result ``quantizer`` rounds, back to the roundings before them."""
    ends, seen = [quantizer.input[0]], set()
    while ends:
        node = producers.get(ends.pop())
        if node is not None and node.op_type not in _ROUNDINGS and node.name not in seen:
            seen.add(node.name)
            ends += node.input
            yield node
