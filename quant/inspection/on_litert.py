"""What LiteRT runs of a network: from the operators of the file that is written for it."""

import tempfile
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor, fx

from quant.engines import litert as engine
from quant.engines.decomposed import decompose
from quant.engines.outputs import flatten_outputs_
from quant.inspection.operators import marked
from quant.inspection.origins import operator_names, origin, places, rounded_by
from quant.inspection.placement import FLOAT, INT8, Placement

_ROUNDINGS = ("QUANTIZE", "DEQUANTIZE")


@torch.no_grad()
def on_litert(prepared: fx.GraphModule, image: Tensor) -> Placement:
    """Write a prepared network for an image like ``image`` (1xCxHxW), and read what its operators give.

    An operator whose result is rounded by a step of its own is in float; ``places`` says the rest.
    """
    from quant.engines.litert.lowering import lower  # as the package may be missing

    plain = decompose(marked(prepared), engine.SIGNED)
    rounded = rounded_by(plain)
    with tempfile.TemporaryDirectory() as folder:
        made = lower(plain, image, Path(folder) / engine.FILE, flatten_outputs_(plain, image))
    names = operator_names(plain, rounded)  # after the changes that were made for the file
    types: dict[str, set[str]] = defaultdict(set)
    conversions = 0
    for node, operators in made.items():
        name = names.get(origin(node))
        for one in operators:
            if one.code in _ROUNDINGS:
                conversions += one.from_int8 != one.int8
                if name and not one.from_int8 and rounded.get(origin(node)):
                    types[name].add(FLOAT)
            elif name:
                types[name].add(INT8 if one.int8 else FLOAT)
    return Placement("litert", places(prepared, rounded, types), conversions)
