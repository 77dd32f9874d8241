"""Time by operator of a network on the engine that it is loaded for."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from quant.engines.exported import ExportedNetwork
from quant.operator_times import litert, onnxruntime, torch_kernels, xnnpack
from quant.operator_times.operator_time import OperatorTime

FORWARDS = 15
FILES: dict[str, Callable[[Path, Tensor, int, int], list[OperatorTime]]] = {
    "onnxruntime": onnxruntime.operator_times,
    "xnnpack": xnnpack.operator_times,
    "litert": litert.operator_times,
}
"""By engines that run a file of their own."""


def operator_times(
    network: nn.Module, image: Tensor, run: Callable[[Tensor], object] | None = None, forwards: int = FORWARDS
) -> list[OperatorTime] | None:
    """Operators of a network in eval mode for ``image`` (1xCxHxW), on as many threads as torch has, slowest first.

    ``run`` is its forward where that is not the network's own. None where the engine does not tell. Raises what an
    engine's own profiler raises.
    """
    if isinstance(network, ExportedNetwork):
        tell = FILES.get(network.engine)
        return tell(network.path, image, torch.get_num_threads(), forwards) if tell else None
    return torch_kernels.operator_times(network, image, forwards, run)
