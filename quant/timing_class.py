"""Which networks must take the same time: those that run the same operators on the same shapes and types."""

import hashlib
import re

import torch
from torch import Tensor, fx, nn

from quant.engines.decomposed import DEQUANTIZE, QUANTIZE, ConstantScaledSiLU, Int8Conv
from quant.engines.exported import ExportedNetwork, plain_form
from quant.engines.int8_forms import fits_in_4_bits
from quant.engines.qnnpack import is_int8_conv
from quant.graph import module_of

LENGTH = 12
_VALUES = re.compile(r"(scale|zero_point)=[^,)]*")
_ONE_KERNEL = ("qnnpack",)
"""Engines whose convolutions treat weights of one scale as those of many: with a scale for each channel."""


def timing_class(network: nn.Module, shape: tuple[int, ...], runtime: str = "eager", known: str | None = None) -> str:
    """A hash of all that decides how long the network takes on an input of this shape, and of nothing else.

    Operators, their geometry, shapes and types count, as do the engine and the ``runtime`` of a float network; weights,
    scales and zero points do not. ``known`` is what ``structure`` said of the network that an engine's file was
    written from; without it a file is a class of its own.
    """
    if isinstance(network, ExportedNetwork):
        own = known or hashlib.sha256(network.path.read_bytes()).hexdigest()
        parts = [network.engine, own]
    else:
        int8 = any(is_int8_conv(module) for module in network.modules())
        engine = str(torch.backends.quantized.engine) if int8 else "float"
        parts = [engine, structure(network, engine)]
    return _digest([*parts, runtime, str(shape)])[:LENGTH]


def structure(network: nn.Module, engine: str) -> str:
    """A hash of the operators of a network that runs on ``engine``, or that a file for it is written from."""
    if not isinstance(network, fx.GraphModule):
        return _digest([type(network).__qualname__, _described(network, engine)])
    position = {node: index for index, node in enumerate(network.graph.nodes)}
    lines = []
    for node in network.graph.nodes:
        module = module_of(network, node)
        target = "" if node.op in ("placeholder", "get_attr") else getattr(node.target, "__name__", str(node.target))
        constants = node.args[-1:] if node.target in (QUANTIZE, DEQUANTIZE) else (node.args, dict(node.kwargs))
        arguments = fx.map_arg((constants, node.all_input_nodes), lambda arg: f"%{position[arg]}")
        lines.append(f"{node.op} {target if module is None else _described(module, engine)} {arguments}")
    return _digest(lines)


def file_structure(source: nn.Module, engine: str, example: Tensor | None = None) -> str:
    """The ``structure`` of what an engine's file is written from: a prepared network, or a float one."""
    return structure(plain_form(source, engine, example), engine)


def _described(module: nn.Module, engine: str) -> str:
    return " ".join(_own(part, engine) for part in module.modules())


def _own(module: nn.Module, engine: str) -> str:
    """Kind, geometry, shapes and types of one module; none of the values that it holds."""
    parts: list[object] = [type(module).__name__]
    if isinstance(module, Int8Conv):
        limit = None if module.limit is None else "relu" if module.limit == float("inf") else "clamp"
        parts += [module.geometry, limit, module.per_channel]
        if engine == "litert":  # which writes them as other operators
            parts.append(fits_in_4_bits(module.weight))
    elif isinstance(module, ConstantScaledSiLU):  # a factor of one is left out by XNNPACK's exporter
        parts.append(bool((module.slope == 1).all()))
    else:
        parts.append(_VALUES.sub("", module.extra_repr()))
    if is_int8_conv(module):
        weight = module.weight()
        parts += [tuple(weight.shape), weight.dtype, None if engine in _ONE_KERNEL else weight.qscheme()]
    parts += [(tuple(tensor.shape), tensor.dtype) for tensor in (*module.parameters(False), *module.buffers(False))]
    return str(parts)


def _digest(parts: list[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
