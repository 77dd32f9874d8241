"""From which operator of a prepared network a node of its exported form was made."""

from collections.abc import Mapping

from torch import fx

from quant.engines.decomposed import DEQUANTIZE, QUANTIZE
from quant.inspection.operators import OPERATOR, moves, operator_nodes
from quant.inspection.placement import FLOAT, FOLDED, INT8


def rounded_by(plain: fx.GraphModule) -> dict[str, str]:
    """By the name of a rounding: the operator whose result it rounds."""
    roundings = (node for node in plain.graph.nodes if node.target is QUANTIZE)
    return {node.name: node.args[0].meta[OPERATOR] for node in roundings if OPERATOR in node.args[0].meta}


def operator_names(plain: fx.GraphModule, rounded: dict[str, str]) -> dict[str, str]:
    """By the name of a node in the graph that is exported: its operator, or the one that it was made a part of."""
    names: dict[str, str] = dict(rounded)
    for node in reversed(plain.graph.nodes):
        if node.op.startswith("call_") and node.name not in names:
            ahead = (found for user in node.users if (found := names.get(user.name)))
            names[node.name] = node.meta.get(OPERATOR) or next(ahead, "")
    roundings = {node.name for node in plain.graph.nodes if node.target in (QUANTIZE, DEQUANTIZE)}
    return {name: operator for name, operator in names.items() if operator and name not in roundings}


def origin(node: fx.Node) -> str:
    """The name of the node, in the graph that was exported, from which this one was made; else an empty text."""
    source = (node.meta.get("from_node") or [None])[-1]
    while source is not None and source.from_node:
        source = source.from_node[-1]
    return str(source.name) if source is not None and source.pass_name.startswith("Interpreter_Interp") else ""


def places(prepared: fx.GraphModule, rounded: Mapping[str, str], types: Mapping[str, set[str]]) -> dict[str, str]:
    """Where each operator runs, by the ``types`` (float, int8) of what became of it.

    It is float if one of its parts is, or if it computes and is not rounded at all; folded if nothing is left of it.
    """
    where = {}
    for node in operator_nodes(prepared):
        found = types.get(node.name, set())
        if not found and node.name not in rounded.values() and not moves(prepared, node):
            found = {FLOAT}
        where[node.name] = FLOAT if FLOAT in found else INT8 if found else FOLDED
    return where
