"""Sums of int8 values that QNNPACK has no kernel for, as their scales are too far apart."""

import torch
from torch import fx

from quant.fake_quantize import FakeQuantize
from quant.graph import ADDITIONS, module_of


def sums_without_kernel(prepared: fx.GraphModule) -> list[str]:
    """The quantizers of sums that have no kernel; a network that is rebuilt, with other ranges, is told them."""
    if "float_sums" in prepared.meta:
        return list(prepared.meta["float_sums"])
    found = []
    for node in prepared.graph.nodes:
        quantizer = module_of(prepared, node)
        if isinstance(quantizer, FakeQuantize) and not _has_kernel(prepared, node.args[0], quantizer):
            found.append(str(node.target))
    return found


def _has_kernel(prepared: fx.GraphModule, producer: fx.Node, output: FakeQuantize) -> bool:
    """Whether QNNPACK, if it is selected, adds values of such scales: none 256 times the output's, or 2 ** -14."""
    if producer.target not in ADDITIONS or torch.backends.quantized.engine != "qnnpack":
        return True
    sources = [module_of(prepared, node) for node in producer.all_input_nodes]
    ratios = [float(source.scale / output.scale) for source in sources if isinstance(source, FakeQuantize)]
    return all(2**-14 <= ratio < 2**8 for ratio in ratios)
