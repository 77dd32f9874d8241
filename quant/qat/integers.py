"""The integer weights that a network with fake quantization stands for: where training starts, and what it changed."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from quant.prepare import quant_convs


@torch.no_grad()
def integer_weights(prepared: nn.Module) -> dict[str, Tensor]:
    """The integers of every quantized convolution by name, on the CPU, with ranges as they are or as they would be.

    Convolutions that are kept in float are left out.
    """
    found = {}
    for name, conv in quant_convs(prepared).items():
        quantizer = conv.weight_quantizer
        if quantizer.mode == "off":
            continue
        weight = conv.folded()[0]
        if quantizer.mode == "moving_average":
            quantizer.set_range_from_weight(weight, "minmax")
        found[name] = quantizer.quantize(weight).cpu()
    return found


def changed(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> float:
    """The share of integers that differ, 0 to 1."""
    total = sum(one.numel() for one in before.values())
    return sum(int((one != after[name]).sum()) for name, one in before.items()) / max(total, 1)
