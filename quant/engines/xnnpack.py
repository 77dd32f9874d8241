"""XNNPACK through ExecuTorch: the network as a ``.pte`` file, and its runtime."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from model.tasks.nested import Nested
from quant.engines.decomposed import ROUNDING
from quant.engines.int8_forms import int8_gates, requantized_concatenations
from quant.engines.outputs import KEY, Outputs
from quant.graph import finish, note_names_

FILE = "network.pte"
SIGNED = True  # XNNPACK's quantized operators take int8 activations
CHANNELS_LAST = False
GATE = (1 / 255, -128)
"""Scale and zero point of a SiLU's gate: from 0 to 1, both exact."""


def write(network: nn.Module, example: Tensor, path: Path, outputs: Outputs) -> None:
    """Lower ``network`` for inputs like ``example`` (1xCxHxW) to XNNPACK and write it to ``path``."""
    path.write_bytes(lower(network, example, outputs).to_executorch().buffer)


def lower(network: nn.Module, example: Tensor, outputs: Outputs | None = None) -> Any:
    """ExecuTorch's program of ``network``, a graph being changed, with the parts that XNNPACK takes."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    if isinstance(network, fx.GraphModule):
        network = note_names_(_contiguous_attention(requantized_concatenations(int8_gates(network, GATE))))
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


def _contiguous_attention(network: fx.GraphModule) -> fx.GraphModule:
    """A copy behind each attention: ExecuTorch takes it apart, and then its strides are not those of torch.export."""
    for node in network.graph.find_nodes(op="call_function", target=F.scaled_dot_product_attention):
        with network.graph.inserting_after(node):
            copied = network.graph.call_function(torch.clone, (node,), {"memory_format": torch.contiguous_format})
        copied.meta = dict(node.meta)
        node.replace_all_uses_with(copied, delete_user_cb=lambda user, copied=copied: user is not copied)
    return finish(network)


_pools = 0
"""How often ExecuTorch's thread pool was replaced; what was loaded before keeps the former one."""


def use_threads(threads: int) -> int:
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

        pool = use_threads(torch.get_num_threads())
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
