"""How much the output moves when a value or a weight moves: squared derivatives over calibration images.

To first order, independent rounding errors of variance v in a tensor add ``v * sum (d out / d tensor)^2`` to the
squared error of the output. The sum over all outputs is estimated as in Hutchinson 1989: the square of the derivative
of a sum of outputs with random signs.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from model.noise import output_unit
from quant.calibrate import Images
from quant.graph import bn_factor, conv_blocks, module_of
from quant.tracing.same_function import tensors


@dataclass
class ChannelStats:
    """Of one value, for each channel (C,): smallest, largest, and the sum of squared derivatives."""

    low: Tensor
    high: Tensor
    squared: Tensor


@dataclass(frozen=True)
class Sensitivity:
    """Statistics of the values by node, and squared derivatives by folded weight (out, in / groups, kh, kw)."""

    values: dict[fx.Node, ChannelStats]
    weights: dict[fx.Node, Tensor]


def sensitivity(
    graph_module: fx.GraphModule, nodes: Iterable[fx.Node], images: Images, count: int, seed: int = 0
) -> Sensitivity:
    """Statistics over the first ``count`` of the images, one after the other.

    Args:
        graph_module: float network in eval mode, BatchNorm live or folded.
        nodes: values NxCxHxW to look at.
        images: normalized, Nx3xHxW.

    The network may be on any device; what is returned is on the CPU.

    The derivatives by weights are taken with the mean of their inputs held fixed: an error of a weight times the mean
    input is a constant, which bias correction or training removes.
    """
    count = min(count, len(images))
    device = next(graph_module.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    blocks = conv_blocks(graph_module)
    means = _input_means(graph_module, images, count)
    recorder = _Recorder(graph_module, set(nodes))
    weights = {block.conv: graph_module.get_parameter(f"{block.conv.target}.weight") for block in blocks}
    squared = {node: torch.zeros_like(weight) for node, weight in weights.items()}
    with torch.enable_grad():
        for index in range(count):
            total = torch.zeros((), device=device)
            found = tensors(recorder.run(images[index : index + 1].to(device)))
            for output in found:
                signs = torch.randint(0, 2, output.shape, generator=generator).to(output) * 2 - 1
                unit = output_unit(output.detach()) if len(found) > 1 else 1.0
                total = total + (output * signs).sum() * unit
            outputs = [recorder.convolved[node] for node in weights]
            gradients = torch.autograd.grad(total, [*weights.values(), *outputs])
            for node, by_weight, by_output in zip(
                weights, gradients[: len(weights)], gradients[len(weights) :], strict=True
            ):
                squared[node] += (by_weight - by_output.sum((0, 2, 3)).reshape(-1, 1, 1, 1) * means[node]) ** 2
    for block in blocks:
        bn = module_of(graph_module, block.bn)
        if isinstance(bn, nn.BatchNorm2d):  # what is quantized is the folded weight
            squared[block.conv] /= bn_factor(bn).detach().reshape(-1, 1, 1, 1) ** 2
    return Sensitivity(
        {n: ChannelStats(s.low.cpu(), s.high.cpu(), s.squared.cpu()) for n, s in recorder.stats.items()},
        {node: total.cpu() for node, total in squared.items()},
    )


@torch.no_grad()
def _input_means(graph_module: fx.GraphModule, images: Images, count: int) -> dict[fx.Node, Tensor]:
    """The mean of what each weight of a convolution is multiplied by, (out, in / groups, 1, 1), padding aside."""
    device = next(graph_module.parameters()).device
    convs = {block.conv: module_of(graph_module, block.conv) for block in conv_blocks(graph_module)}
    sums: dict[nn.Module, Tensor | float] = dict.fromkeys((conv for conv in convs.values() if conv is not None), 0.0)

    def add(conv: nn.Module, inputs: tuple[Tensor]) -> None:
        rows = len(inputs[0]) // len(batch)  # of each image: a linear layer may have many
        sums[conv] += inputs[0].mean((2, 3)).sum(0) / (count * rows)

    hooks = [conv.register_forward_pre_hook(add) for conv in sums]
    for start in range(0, count, 8):
        batch = images[start : min(start + 8, count)].to(device)
        graph_module(batch)
    for hook in hooks:
        hook.remove()
    means = {}
    for node, conv in convs.items():
        assert isinstance(conv, nn.Conv2d)
        grouped = (
            torch.as_tensor(sums[conv]).reshape(conv.groups, 1, -1).expand(-1, conv.out_channels // conv.groups, -1)
        )
        means[node] = grouped.reshape(conv.out_channels, -1, 1, 1)
    return means


class _Recorder(fx.Interpreter):
    def __init__(self, graph_module: fx.GraphModule, nodes: set[fx.Node]) -> None:
        super().__init__(graph_module)
        self.wanted = nodes
        self.stats: dict[fx.Node, ChannelStats] = {}
        self.convolved: dict[fx.Node, Tensor] = {}

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if isinstance(module_of(self.module, n), nn.Conv2d):  # type: ignore[arg-type]
            self.convolved[n] = value
        if n in self.wanted:
            assert isinstance(value, Tensor)
            seen = value.detach()
            low, high = seen.amin((0, 2, 3)), seen.amax((0, 2, 3))
            stats = self.stats.setdefault(n, ChannelStats(low, high, torch.zeros_like(low)))
            stats.low, stats.high = torch.minimum(stats.low, low), torch.maximum(stats.high, high)
            if value.requires_grad:
                value.register_hook(lambda gradient, n=n: self._add(n, gradient))
        return value

    def _add(self, node: fx.Node, gradient: Tensor) -> None:
        self.stats[node].squared += (gradient.detach() ** 2).sum((0, 2, 3))
