"""What PyTorch's int8 kernels run of a network: from the converted graph and the types of its values."""

from typing import Any

import torch
from torch import Tensor, fx

from quant.engines import qnnpack
from quant.graph import module_of
from quant.inspection.operators import OPERATOR, first_tensor, marked, operator_nodes
from quant.inspection.placement import FLOAT, FOLDED, INT8, Placement
from quant.prepare import QuantConv


@torch.no_grad()
def on_qnnpack(prepared: fx.GraphModule, image: Tensor) -> Placement:
    """Convert a prepared network with frozen ranges and run it on ``image`` (1xCxHxW)."""
    int8 = int8_form(prepared)
    observed = _Types(int8)
    observed.run(image)
    where = {node.name: observed.where.get(node.name, FOLDED) for node in operator_nodes(prepared)}
    conversions = [node for node in int8.graph.nodes if node.target in (torch.quantize_per_tensor, "dequantize")]
    return Placement(qnnpack.ENGINE, where, len(conversions))


def int8_form(prepared: fx.GraphModule) -> fx.GraphModule:
    """The int8 network with the name of the operator on every node that runs one."""
    int8 = qnnpack.convert(marked(prepared))
    results: dict[str, str] = {}
    convolutions: dict[str, str] = {}
    for node in operator_nodes(prepared):
        results |= {f"{user.name}_scale": node.name for user in node.users}
        if isinstance(module_of(prepared, node), QuantConv):
            convolutions[str(node.target)] = node.name
    for node in int8.graph.nodes:
        if node.op == "call_module" and str(node.target) in convolutions:
            node.meta[OPERATOR] = convolutions[str(node.target)]
        elif node.op == "call_function" and str(node.target).startswith("quantized."):
            scales = [str(source.target) for source in node.all_input_nodes if source.op == "get_attr"]
            node.meta[OPERATOR] = next(results[scale] for scale in scales if scale in results)
    return int8


class _Types(fx.Interpreter):
    """Runs a graph, and keeps of each operator whether its result is int8."""

    def __init__(self, int8: fx.GraphModule) -> None:
        super().__init__(int8)
        self.where: dict[str, str] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        name, tensor = n.meta.get(OPERATOR), first_tensor(value)
        if name is not None and self.where.get(name) != INT8:
            self.where[name] = INT8 if tensor is not None and tensor.is_quantized else FLOAT
        return value
