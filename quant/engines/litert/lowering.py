"""A network written into a ``.tflite`` file, operator by operator."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from quant.engines.decomposed import DEQUANTIZE, QUANTIZE
from quant.engines.int8_forms import int8_gates, requantized_concatenations
from quant.engines.litert import convolutions, elementwise, moves, pictures, tokens
from quant.engines.litert.flatbuffer import Made
from quant.engines.litert.reading import Reader, array_of, levels_of, refuse
from quant.engines.litert.values import IMAGE, Value, constant
from quant.engines.outputs import KEY, Outputs
from quant.graph import note_names_

_GATE = (1 / 256, -128)
"""Scale and zero point that the int8 sigmoid gives."""
_TABLE: dict[Any, Any] = {
    **moves.TABLE,
    **pictures.TABLE,
    **elementwise.TABLE,
    **tokens.TABLE,
    **convolutions.TABLE,
}

_ATEN = torch.ops.aten
_FILLED = {
    _ATEN.new_zeros.default: 0,
    _ATEN.zeros_like.default: 0,
    _ATEN.new_ones.default: 1,
    _ATEN.ones_like.default: 1,
}
"""Constants that take their shape from a value."""


def lower(network: nn.Module, example: Tensor, path: Path, outputs: Outputs) -> dict[fx.Node, list[Made]]:
    """Write ``network``, a graph being changed, for inputs like ``example`` (1xCxHxW) to ``path``.

    Returns the file's operators by the node of the exported network for which they were written. Raises
    UnsupportedNetworkError where one of its operators has no form in the format.
    """
    if isinstance(network, fx.GraphModule):
        network = note_names_(requantized_concatenations(int8_gates(network, _GATE)))
    program = torch.export.export(network, (example,))
    reader = Reader()
    given = _inputs(program)
    image = None
    model, first = reader.writer.model, dict[fx.Node, int]()
    for node in program.graph.nodes:
        first[node] = len(model.operators)
        if node.op == "placeholder":
            if node.name in given:
                reader.values[node] = constant(array_of(given[node.name]))
            else:
                image = reader.values[node] = reader.writer.input(tuple(example.shape))
        elif node.op == "call_function" and node not in reader.values:
            reader.values[node] = _written(reader, node)
        elif node.op == "output":
            results = [_given(reader, reader.value(one)) for one in node.args[0]]
    assert image is not None
    model.name(image.tensor, "image")
    for tensor, name in zip(results, outputs.names, strict=True):
        model.name(tensor, name)
    written = list(model.operators)
    model.save(path, [image.tensor], results, {KEY: outputs.text} if outputs.text else {})
    left, ends = set(model.operators), [*list(first.values())[1:], len(written)]
    return {
        node: [operator for operator in written[start:end] if operator in left]
        for (node, start), end in zip(first.items(), ends, strict=True)
    }


def _inputs(program: Any) -> dict[str, Tensor]:
    """The constants of a program by the names of their placeholders."""
    signature = program.graph_signature
    named = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    state = {**program.state_dict, **program.constants}
    lifted = {name: program.constants[key] for name, key in signature.inputs_to_lifted_tensor_constants.items()}
    return {name: state[key] for name, key in named.items()} | lifted


def _written(reader: Reader, node: fx.Node) -> Any:
    if node.target is QUANTIZE:
        return reader.writer.rounded(reader.value(node.args[0]), levels_of(node))
    if node.target is DEQUANTIZE:
        value = reader.value(node.args[0])
        return value if value.array is None else constant(value.array, levels_of(node))
    if node.target in _FILLED:
        return constant(
            array_of(torch.full(node.meta["val"].shape, _FILLED[node.target], dtype=node.meta["val"].dtype))
        )
    if _is_constant(reader, node):
        return _computed(reader, node)
    if getattr(node.target, "__name__", "") == "getitem":
        return moves.getitem(reader, node)
    if node.target not in _TABLE:
        raise refuse(node, "it is unknown")
    return _TABLE[node.target](reader, node)


def _is_constant(reader: Reader, node: fx.Node) -> bool:
    """Whether only constants go in, of float and not of int8 with scales, and one tensor comes out."""
    known = [reader.values[one] for one in node.all_input_nodes]
    plain = all(isinstance(one, Value) and one.array is not None and one.levels is None for one in known)
    return plain and isinstance(node.meta["val"], Tensor) and node.target not in convolutions.TABLE


def _computed(reader: Reader, node: fx.Node) -> Value:
    assert callable(node.target)
    args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), lambda one: torch.from_numpy(reader.values[one].array))
    return constant(array_of(node.target(*args, **kwargs)))


def _given(reader: Reader, value: Value) -> int:
    """The tensor of an output, in float; images with their channels last, as the input has them."""
    order = IMAGE if value.rank == 4 else tuple(range(value.rank))
    moved = Value(value.shape, order, value.levels, reader.writer.stored(value, order))
    return reader.writer.as_float(moved).tensor
