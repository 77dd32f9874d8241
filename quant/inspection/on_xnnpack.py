"""What XNNPACK runs of a network: from the programs that ExecuTorch hands to it, and what it leaves outside."""

import json
import re
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from quant.engines import xnnpack as engine
from quant.engines.decomposed import decompose
from quant.inspection.operators import first_tensor, marked
from quant.inspection.origins import operator_names, origin, places, rounded_by
from quant.inspection.placement import FLOAT, INT8, Placement

_ROUNDING = "XNNConvert"
BYTES = ("xnn_datatype_qint8", "xnn_datatype_quint8")


@torch.no_grad()
def on_xnnpack(prepared: fx.GraphModule, image: Tensor) -> Placement:
    """Lower a prepared network for an image like ``image`` (1xCxHxW), and read each program of XNNPACK in the result.

    ExecuTorch notes from which node each of its operators was made, but for those that its own passes put in the place
    of others. An operator is float if one of its parts is, if its result is rounded by a step of its own, or if it
    computes and is not rounded at all; and folded if nothing is left of it.
    """
    plain = decompose(marked(prepared), engine.SIGNED)
    rounded = rounded_by(plain)
    program = engine.lower(plain, image).exported_program().graph_module
    names = operator_names(plain, rounded)
    types: dict[str, set[str]] = defaultdict(set)
    conversions = 0
    for node in program.graph.nodes:  # outside of XNNPACK: ExecuTorch's own kernels
        if node.op != "call_function" or _is_call(node) or "dim_order" in str(node.target):
            continue
        if "quantize_per_tensor" in str(node.target):
            conversions += 1
            if operator := rounded.get(origin(node)):
                types[operator].add(FLOAT)
        elif (name := names.get(origin(node))) and (value := first_tensor(node.meta.get("val"))) is not None:
            types[name].add(INT8 if value.dtype in (torch.int8, torch.uint8) else FLOAT)
    for lowered in (module for module in program.children() if hasattr(module, "original_module")):
        handles = _handles(lowered.original_module.graph_module, names)
        roundings = _handles(lowered.original_module.graph_module, rounded)
        nodes, datatypes = delegated(lowered.processed_bytes)
        for kind, handle, node in nodes:
            result = INT8 if datatypes[node["output_id"]] in BYTES else FLOAT
            if kind == _ROUNDING:
                from_int8 = datatypes[node["input_id"]] in BYTES
                conversions += from_int8 != (result == INT8)
                for name in roundings.get(handle, ()) if not from_int8 else ():
                    types[name].add(FLOAT)
            else:
                for name in handles.get(handle, ()):
                    types[name].add(result)
    return Placement("xnnpack", places(prepared, rounded, types), conversions)


def _is_call(node: fx.Node) -> bool:
    calls = any(source.op == "get_attr" and "lowered_module" in str(source.target) for source in node.all_input_nodes)
    return calls or any("executorch_call_delegate" in source.name for source in node.all_input_nodes)


def _handles(delegated: fx.GraphModule, names: dict[str, str]) -> dict[int, set[str]]:
    """The operators by the number that ExecuTorch gives to what belongs together."""
    found: dict[int, set[str]] = defaultdict(set)
    for node in delegated.graph.nodes:
        handle, name = node.meta.get("debug_handle"), names.get(origin(node))
        if node.op == "call_function" and handle is not None and name:
            found[handle].add(name)
    return found


def delegated(content: bytes) -> tuple[list[tuple[str, int, dict[str, Any]]], dict[int, str]]:
    """The nodes of one program of XNNPACK (kind, number, ids of values) and the type of each value."""
    from executorch.backends.xnnpack.serialization import xnnpack_graph_serialize as serialize
    from executorch.exir._serialize._flatbuffer import _flatc_decompile

    header = serialize.XNNHeader.from_bytes(content[: serialize.XNNHeader.EXPECTED_LENGTH])
    with tempfile.TemporaryDirectory() as folder:
        schema, binary = Path(folder) / "schema.fbs", Path(folder) / "graph.bin"
        schema.write_bytes(serialize._get_schema_bytes())
        binary.write_bytes(content[header.flatbuffer_offset : header.flatbuffer_offset + header.flatbuffer_size])
        _flatc_decompile(folder, str(schema), str(binary), ["--raw-binary"])
        text = (Path(folder) / "graph.json").read_text()
    graph = json.loads(re.sub(r":\s*[+-]?(inf|nan)\b", ": null", text))  # which JSON has no words for
    nodes = []
    for node in graph["xnodes"]:
        union = node["xnode_union"]
        nodes.append((node["xnode_union_type"], node["debug_handle"], union.get("node", union)))
    values = (value["xvalue_union"] for value in graph["xvalues"])
    tensors = (value.get("tensor_value", value) for value in values)
    return nodes, {tensor["id_out"]: tensor["datatype"] for tensor in tensors}
