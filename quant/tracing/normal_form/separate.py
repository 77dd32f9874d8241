"""A module of its own for every call."""

import copy

from torch import fx

from quant.graph import module_of, set_module
from quant.tracing.normal_form.constants import free_name


def separate_calls_(graph_module: fx.GraphModule) -> None:
    """Give every further call of a module that has weights a copy of it: ``head``, ``head_2``, ``head_3`` ...

    Ranges, folded BatchNorm and int8 scales differ from call to call, so that each needs its own. The function stays
    the same. Training unties the copies: quantization-aware training lets each learn for its own call, and an int8
    network stores the weights once for each. Weights that two modules share are copied in the same way.
    """
    seen: set[object] = set()
    for node in graph_module.graph.nodes:
        module = module_of(graph_module, node)
        if module is None or not (parts := {*module.parameters(), *module.buffers()}):
            continue
        if module in seen:
            name = free_name(graph_module, str(node.target))
            set_module(graph_module, name, copy.deepcopy(module))
            node.target = name
        elif parts & seen:
            set_module(graph_module, str(node.target), copy.deepcopy(module))
        seen |= {module, *parts}
