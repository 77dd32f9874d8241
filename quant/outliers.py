"""Which calibration images are typical: those with extreme activations in the float network set no ranges.

A network in training normalizes by the batch. With running statistics a rare image can drive its activations many times
as high as any other, so that its prediction is lost in float already. Ranges wide enough for it would cost all other
images their resolution.
"""

import torch
from torch import Tensor, fx, nn

from quant.calibrate import Images
from quant.graph import constants
from quant.tracing.trace import trace


class _Largest(fx.Interpreter):
    """Keeps the largest magnitude of every value for each of ``count`` images; one may have many rows of a value."""

    def __init__(self, graph_module: fx.GraphModule, count: int) -> None:
        super().__init__(graph_module)
        self.count = count
        self.constants = constants(graph_module)
        self.largest: list[Tensor] = []

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if isinstance(value, Tensor) and value.dim() == 4 and n.op != "output" and n not in self.constants:
            self.largest.append(value.abs().reshape(self.count, -1).amax(1))
        return value


@torch.no_grad()
def typical_images(network: nn.Module, images: Images, ratio: float, batch_size: int = 8) -> list[int]:
    """Positions of the images whose activations reach at most ``ratio`` times as far as the median image's.

    Args:
        network: float network in eval mode.
        images: normalized, Nx3xHxW.
        ratio: of the largest magnitudes, in the geometric mean over all values of the network.

    At least one is kept. Raises FloatingPointError where the network gives NaN or infinity.
    """
    graph_module = trace(network, images[0:1])
    device = next(graph_module.parameters()).device
    rows = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size].to(device)
        run = _Largest(graph_module, len(batch))
        run.run(batch)
        rows.append(torch.stack(run.largest, 1))
    largest = torch.cat(rows)  # (images, values)
    if not torch.isfinite(largest).all():
        wrong = (~torch.isfinite(largest)).any(1).nonzero().flatten().tolist()
        raise FloatingPointError(
            f"the float network gives values that are not finite on calibration images {wrong[:5]}"
        )
    logs = largest.clamp_min(1e-9).log()
    level = (logs - logs.median(0).values).mean(1).exp()
    return (level <= max(ratio, float(level.min()))).nonzero().flatten().tolist()
