"""XNNPACK through ExecuTorch: the network as a ``.pte`` file, and its runtime."""

import operator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from model.tasks.nested import Nested
from quant.engines.decomposed import DEQUANTIZE, QUANTIZE, ROUNDING, ConstantScaledSiLU
from quant.engines.outputs import KEY, Outputs
from quant.graph import finish, joined, module_of

FILE = "network.pte"
SIGNED = True  # XNNPACK's quantized operators take int8 activations
_INT8 = (-128, 127, torch.int8)
_GATE_INPUT = (1 / 16, 0)
"""Scale and zero point in front of a gate's sigmoid: from -8 to 8, where sigmoid is 0.0003 and 0.9997."""
_GATE = (1 / 255, -128)
"""Of the gate itself: from 0 to 1, both exact."""


def write(network: nn.Module, example: Tensor, path: Path, outputs: Outputs) -> None:
    """Lower ``network`` for inputs like ``example`` (1xCxHxW) to XNNPACK and write it to ``path``."""
    path.write_bytes(lower(network, example, outputs).to_executorch().buffer)


def lower(network: nn.Module, example: Tensor, outputs: Outputs | None = None) -> Any:
    """ExecuTorch's program of ``network``, a graph being changed, with the parts that XNNPACK takes."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    if isinstance(network, fx.GraphModule):
        network = _contiguous_attention(_requantized_concatenations(_int8_gates(network)))
        for node in network.graph.nodes:  # torch.export notes what became of a node only where it has notes already
            node.meta.setdefault("name", node.name)
    program = torch.export.export(network, (example,))
    theirs = torch.ops.quantized_decomposed  # made known by ExecuTorch, which was imported above
    named = {ours: getattr(theirs, ours.name().partition("::")[2]).default for ours in ROUNDING}
    for node in program.graph.nodes:
        node.target = named.get(node.target, node.target)
    return to_edge_transform_and_lower(
        program,
        partitioner=[XnnpackPartitioner(configs=_partitioner_configs())],
        constant_methods={KEY: outputs.text} if outputs and outputs.text else None,
        compile_config=EdgeCompileConfig(_check_ir_validity=False),
    )


def _partitioner_configs() -> list[Any]:
    """ExecuTorch's own, but for sigmoid, which XNNPACK has in int8 as well (a table of 256 values)."""
    from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS
    from executorch.backends.xnnpack.partition.config.generic_node_configs import SigmoidConfig
    from executorch.backends.xnnpack.partition.config.xnnpack_config import ConfigPrecisionType

    class AlsoQuantizedSigmoid(SigmoidConfig):  # type: ignore[misc]  # ExecuTorch has no types, and may be missing
        def supported_precision_types(self) -> list[Any]:
            return [ConfigPrecisionType.FP32, ConfigPrecisionType.STATIC_QUANT]

    return [AlsoQuantizedSigmoid if config is SigmoidConfig else config for config in ALL_PARTITIONER_CONFIGS]


class _Slope(nn.Module):
    """A factor a channel as an int8 constant: 256 levels from 0 to the largest."""

    levels: Tensor

    def __init__(self, slope: Tensor) -> None:
        super().__init__()
        self.scale = float(slope.max()) / 255
        self.register_buffer("levels", (torch.round(slope / self.scale) - 128).to(torch.int8).reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        slope: Tensor = DEQUANTIZE(self.levels, self.scale, -128, *_INT8)
        return x * slope


def _int8_gates(network: fx.GraphModule) -> fx.GraphModule:
    """``x * sigmoid(x / f)`` with the gate in int8 too: in float it costs half as much as all convolutions together.

    The gate is rounded up to twice more than the recipe's simulation does, at fixed levels.
    """
    graph = network.graph
    for node in list(graph.nodes):
        module = module_of(network, node)
        if not isinstance(module, ConstantScaledSiLU | nn.SiLU) or node.args[0].target is not DEQUANTIZE:
            continue
        with graph.inserting_before(node):
            gate = graph.call_function(DEQUANTIZE, node.args[0].args)  # partitioners want one for each reader
            if isinstance(module, ConstantScaledSiLU) and not bool((module.slope == 1).all()):
                network.add_module(f"{node.name}_slope", _Slope(module.slope))
                gate = _rounded(graph, graph.call_module(f"{node.name}_slope", (gate,)), (*_GATE_INPUT, *_INT8))
            gate = _rounded(graph, graph.call_function(torch.sigmoid, (gate,)), (*_GATE, *_INT8))
            product = graph.call_function(operator.mul, (node.args[0], gate))
        node.replace_all_uses_with(product)
        graph.erase_node(node)
    return finish(network)


def _requantized_concatenations(network: fx.GraphModule) -> fx.GraphModule:
    """XNNPACK concatenates values of one scale only: round each part to the result's levels first, as int8 does."""
    graph = network.graph
    for node in list(graph.nodes):
        readers = list(node.users)
        if not joined(node) or [reader.target for reader in readers] != [QUANTIZE]:
            continue
        for part in list(node.all_input_nodes):
            with graph.inserting_before(node):
                node.replace_input_with(part, _rounded(graph, part, readers[0].args[1:]))
    return finish(network)


def _contiguous_attention(network: fx.GraphModule) -> fx.GraphModule:
    """A copy behind each attention: ExecuTorch takes it apart, and then its strides are not those of torch.export."""
    for node in network.graph.find_nodes(op="call_function", target=F.scaled_dot_product_attention):
        with network.graph.inserting_after(node):
            copied = network.graph.call_function(torch.clone, (node,), {"memory_format": torch.contiguous_format})
        copied.meta = dict(node.meta)
        node.replace_all_uses_with(copied, delete_user_cb=lambda user, copied=copied: user is not copied)
    return finish(network)


def _rounded(graph: fx.Graph, value: fx.Node, levels: Any) -> fx.Node:
    """Quantize and dequantize ``value``; ``levels``: scale, zero point, least, greatest, dtype."""
    return graph.call_function(DEQUANTIZE, (graph.call_function(QUANTIZE, (value, *levels)), *levels))


_pools = 0
"""How often ExecuTorch's thread pool was replaced; what was loaded before keeps the former one."""


def _use_threads(threads: int) -> int:
    """Give the process's pool this many threads; returns its number."""
    global _pools
    from executorch.extension.pybindings import portable_lib

    if portable_lib._threadpool_get_thread_count() != threads:
        portable_lib._unsafe_reset_threadpool(threads)  # unsafe while a method runs, and none does
        _pools += 1
    return _pools


class Runner:
    """The loaded method for one image at a time, on as many threads as torch has."""

    def __init__(self, path: Path) -> None:
        self.path, self.pool = path, -1
        self.method: Any = None

    def __call__(self, image: Tensor) -> Nested:
        """1xCxHxW to the outputs of the network."""
        from executorch.runtime import Runtime

        pool = _use_threads(torch.get_num_threads())
        if self.pool != pool:
            program = Runtime.get().load_program(self.path)
            self.pool, self.method = pool, program.load_method("forward")
            kept = KEY in program.method_names
            self.outputs = Outputs.read(program.load_method(KEY).execute(())[0] if kept else None)
        found = self.method.execute((image.contiguous(),))
        return self.outputs.nested([output.clone() for output in found])


class Contents:
    """What a file holds, to be compared with a recipe: its constants are stored as in memory."""

    def __init__(self, path: Path) -> None:
        self.content = path.read_bytes()

    def has_weight(self, weight: Tensor) -> bool:
        """Whether these integers (out x in x h x w) are in it, channels last; of depthwise convolutions out is last."""
        orders = ((0, 2, 3, 1), (1, 2, 3, 0))
        return any(weight.permute(order).contiguous().numpy().tobytes() in self.content for order in orders)

    def has_scale(self, scale: float) -> bool:
        """Whether this float32 is in it."""
        return torch.tensor(scale).numpy().tobytes() in self.content
