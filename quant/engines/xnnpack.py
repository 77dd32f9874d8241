"""XNNPACK through ExecuTorch: the network as a ``.pte`` file, and its runtime."""

from pathlib import Path

import torch
from torch import Tensor, fx, nn

FILE = "network.pte"
SIGNED = True  # XNNPACK's quantized operators take int8 activations


def write(network: nn.Module, example: Tensor, path: Path) -> None:
    """Lower ``network`` for inputs like ``example`` (1x3xSxS) to XNNPACK and write it to ``path``."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    if isinstance(network, fx.GraphModule):
        network = _requantized_concatenations(network)
    edge = to_edge_transform_and_lower(
        torch.export.export(network, (example,)),
        partitioner=[XnnpackPartitioner()],
        compile_config=EdgeCompileConfig(_check_ir_validity=False),
    )
    path.write_bytes(edge.to_executorch().buffer)


def _requantized_concatenations(network: fx.GraphModule) -> fx.GraphModule:
    """XNNPACK concatenates values of one scale only: round each part to the result's levels first, as int8 does."""
    operators = torch.ops.quantized_decomposed
    graph = network.graph
    for node in list(graph.nodes):
        readers = list(node.users)
        if node.target is not torch.cat or [r.target for r in readers] != [operators.quantize_per_tensor.default]:
            continue
        levels = readers[0].args[1:]
        for part in list(node.all_input_nodes):
            with graph.inserting_before(node):
                rounded = graph.call_function(operators.quantize_per_tensor.default, (part, *levels))
                value = graph.call_function(operators.dequantize_per_tensor.default, (rounded, *levels))
            node.replace_input_with(part, value)
    graph.lint()
    network.recompile()
    return network


class Runner:
    """The loaded method for one image at a time, on as many threads as torch has."""

    def __init__(self, path: Path) -> None:
        from executorch.runtime import Runtime

        self.threads = 0
        method = Runtime.get().load_program(path).load_method("forward")
        assert method is not None
        self.method = method

    def __call__(self, image: Tensor) -> Tensor:
        """1x3xSxS to 1x1xS/4xS/4."""
        if self.threads != torch.get_num_threads():
            from executorch.extension.pybindings import portable_lib

            self.threads = torch.get_num_threads()
            portable_lib._unsafe_reset_threadpool(self.threads)  # unsafe while a method runs, and none does
        return self.method.execute((image.contiguous(),))[0].clone()
