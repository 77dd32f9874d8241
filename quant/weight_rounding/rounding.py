"""Rounding by OPTQ: weights go to the grid points that keep their layer's output, not to the nearest ones.

This is OPTQ (GPTQ, Frantar et al. 2023, arXiv:2210.17323) for convolutions, with activation order, followed by
coordinate descent (QuantEase, Behdin et al. 2023, arXiv:2309.01885). Layer by layer it seeks the least squared error of
the layer's output. Targets are asymmetric: inputs come from the layers that are already rounded, the outputs to reach
from the float network, as in GPTAQ (arXiv:2504.02692) and Qronos (arXiv:2505.11695). The error is a quadratic form of
the weights, and nothing is learned by gradient: second moments of the inputs give the best weights off the grid, and
``closest_point`` the grid point, which need not be one of the two next to the float weight (as it is in AdaRound,
arXiv:2004.10568). The bias, which int8 keeps in 32 bits, takes up what is left of the mean. Damping is 100 % of the
inputs' variances by default, where GPTAQ adds 10 % of their mean: see ``RoundingSpec``.
"""

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from model.progress import Progress, ignore_progress
from quant.calibrate import Images
from quant.fake_quantize import FakeQuantize
from quant.graph import bn_factor, module_of
from quant.prepare import QuantConv
from quant.recipe import RoundingSpec
from quant.state import require_state
from quant.weight_rounding.closest_point import closest_point, rounded

_BATCH = 8
_SWEEPS = 10


@dataclass(frozen=True)
class LayerRounding:
    """What rounding did to one convolution.

    Mean squared errors of its output before the activation, in parts of the output's variance: of nearest
    rounding, and of the rounding that was kept. ``flipped``: the share of weights not at their nearest grid point.
    """

    name: str
    error_before: float
    error_after: float
    flipped: float


@torch.no_grad()
def round_weights_optq(
    prepared: fx.GraphModule,
    spec: RoundingSpec,
    images: Images,
    *,
    seed: int,
    progress: Progress = ignore_progress,
) -> tuple[fx.GraphModule, tuple[LayerRounding, ...], dict[str, Tensor]]:
    """A copy of ``prepared`` whose weights lie on their grids, what happened to each layer, and what is best off them.

    The last is, by convolution, the steps from each weight to its best value off the grid (the weight's shape). Biases
    match the rounded weights.

    Args:
        prepared: calibrated, with frozen quantizers, BatchNorm live or folded. With its quantizers off it is the float
            network that gives the targets.
        images: normalized, Nx3xHxW; all values of a layer are held in memory, about 40 MB an image of 224x224.
        seed: draws the outputs at which wide layers are sampled.

    Raises QuantizerStateError if the quantizers are not frozen.
    """
    network = copy.deepcopy(prepared).eval()
    require_state(network, "evaluate")
    device = next(network.parameters()).device
    count = min(spec.images, len(images))
    batches = [images[start : min(start + _BATCH, count)].to(device) for start in range(0, count, _BATCH)]
    generator = torch.Generator().manual_seed(seed)
    runs = _TwoRuns(network, batches)
    nodes = [node for node in network.graph.nodes if node.op != "output"]
    layers = []
    off_grid = {}
    for step, node in enumerate(nodes, 1):
        runs.step_float(node)
        conv = module_of(network, node)
        if isinstance(conv, QuantConv) and conv.weight_quantizer.mode != "off":
            sampled_outputs = -(-spec.places // count)
            moments = _moments(conv, runs.inputs(node), sampled_outputs, generator)
            layer, off_grid[str(node.target)] = _round_(str(node.target), conv, moments, spec.damping)
            layers.append(layer)
        runs.step_quantized(node)
        progress({"step": step, "steps": len(nodes)})
    return network, tuple(layers), off_grid


class _TwoRuns:
    """The values of all images in the float and in the quantized network, node after node, kept while they are read."""

    def __init__(self, network: fx.GraphModule, batches: list[Tensor]) -> None:
        self.network, self.batches = network, batches
        self.interpreter = fx.Interpreter(network)
        self.float: list[dict[fx.Node, Any]] = [{} for _ in batches]
        self.quantized: list[dict[fx.Node, Any]] = [{} for _ in batches]

    def inputs(self, node: fx.Node) -> Iterator[tuple[Tensor, Tensor]]:
        """The float and the quantized input of a convolution, batch by batch."""
        source = node.all_input_nodes[0]
        for exact, quantized in zip(self.float, self.quantized, strict=True):
            yield exact[source], quantized[source]

    def step_float(self, node: fx.Node) -> None:
        """Run ``node``, whose weights are still the float ones, in the float network."""
        module = module_of(self.network, node)
        quantizer = module.weight_quantizer if isinstance(module, QuantConv) else module
        if not isinstance(quantizer, FakeQuantize):
            self._step(node, self.float)
            return
        mode = quantizer.mode
        quantizer.set_mode("off")
        self._step(node, self.float)
        quantizer.set_mode(mode)

    def step_quantized(self, node: fx.Node) -> None:
        """Run ``node`` in the quantized network, and forget what no later node reads."""
        self._step(node, self.quantized)
        for value in self.interpreter.user_to_last_uses.get(node, []):
            for values in (*self.float, *self.quantized):
                del values[value]

    def _step(self, node: fx.Node, runs: list[dict[fx.Node, Any]]) -> None:
        for values, batch in zip(runs, self.batches, strict=True):
            self.interpreter.env = values
            values[node] = batch if node.op == "placeholder" else self.interpreter.run_node(node)


@dataclass(frozen=True)
class _Moments:
    """Of a convolution's quantized input patches x, and of r, by which its output falls short of the float one.

    A patch is what one output value is computed from, and ``r = W (x_float - x)``. ``weight`` W is (groups, rows,
    columns); means and covariances are float64, of shapes x (groups, columns), r and the float output y (groups,
    rows), xx (groups, columns, columns), rx (groups, rows, columns); of r and y there are only variances.
    """

    count: int
    weight: Tensor
    x: Tensor
    r: Tensor
    xx: Tensor
    rx: Tensor
    rr: Tensor
    yy: Tensor

    def variance(self, point: Tensor) -> Tensor:
        """Variance of the output's error with weights ``point`` (groups, rows)."""
        moved = point - self.weight
        return ((moved @ self.xx) * moved - 2.0 * moved * self.rx).sum(-1) + self.rr

    def shortfall(self, point: Tensor) -> Tensor:
        """What the mean of the output lacks with weights ``point`` (groups, rows)."""
        return self.r - ((point - self.weight) @ self.x[..., None])[..., 0]


def _moments(
    conv: QuantConv, inputs: Iterable[tuple[Tensor, Tensor]], sampled_outputs: int, generator: torch.Generator
) -> _Moments:
    """Gather moments over pairs of float and quantized inputs, at up to ``sampled_outputs`` drawn for each image."""
    weight = conv.folded()[0]
    weight = weight.reshape(conv.conv.groups, len(weight) // conv.conv.groups, -1)
    origin: Tensor | None = None
    sums: dict[str, Tensor] = {}
    count = 0
    for float_input, quantized_input in inputs:
        x, exact = _patches(conv.conv, (quantized_input, float_input), sampled_outputs, generator)
        r, y = weight @ (exact - x), weight @ exact
        if origin is None:
            origin = x.mean(-1, keepdim=True)
        x = x - origin  # or large means would cost the moments their precision
        count += x.shape[-1]
        new = {name: value.double().sum(-1) for name, value in {"x": x, "r": r, "y": y, "rr": r**2, "yy": y**2}.items()}
        new |= {"xx": (x @ x.mT).double(), "rx": (r @ x.mT).double()}
        sums = {name: value + sums.get(name, 0.0) for name, value in new.items()}
    assert origin is not None
    mean = {name: value / count for name, value in sums.items()}
    return _Moments(
        count=count,
        weight=weight.double(),
        x=mean["x"] + origin[..., 0],
        r=mean["r"],
        xx=mean["xx"] - mean["x"][:, :, None] * mean["x"][:, None, :],
        rx=mean["rx"] - mean["r"][:, :, None] * mean["x"][:, None, :],
        rr=mean["rr"] - mean["r"] ** 2,
        yy=mean["yy"] - mean["y"] ** 2,
    )


def _patches(
    conv: nn.Conv2d, inputs: tuple[Tensor, ...], sampled_outputs: int, generator: torch.Generator
) -> list[Tensor]:
    """Patches of each input at the same drawn outputs, (groups, columns, outputs of all images)."""
    patches = []
    where: Tensor | None = None
    for values in inputs:
        unfolded = F.unfold(values, conv.kernel_size, conv.dilation, conv.padding, conv.stride)  # type: ignore[arg-type]
        batch, rows, size = unfolded.shape
        if where is None:
            drawn = [torch.randperm(size, generator=generator)[:sampled_outputs] for _ in range(batch)]
            where = torch.stack(drawn)[:, None, :].to(values.device)
        taken = unfolded.gather(2, where.expand(-1, rows, -1)) if sampled_outputs < size else unfolded
        patches.append(taken.reshape(batch, conv.groups, -1, taken.shape[2]).permute(1, 2, 0, 3).flatten(2))
    return patches


def _round_(name: str, conv: QuantConv, moments: _Moments, damping: float) -> tuple[LayerRounding, Tensor]:
    """Put the folded weight of ``conv`` on its grid, and set its bias to match; returns what is off the grid too."""
    variances = moments.xx.diagonal(dim1=1, dim2=2)
    # Few patches show few of the directions that inputs take: an error that they do not see must not look free.
    damping += moments.weight.shape[2] / moments.count
    floor = 1e-9 * variances.mean(1, keepdim=True) + 1e-30  # of dead inputs
    gram = moments.xx + torch.diag_embed(damping * variances + floor)
    target = moments.weight + torch.linalg.solve(gram, moments.rx.mT).mT
    quantizer = conv.weight_quantizer
    step = quantizer.scale.double().reshape(len(target) if quantizer.per_channel else 1, -1)
    nearest = rounded(moments.weight, step[..., None], quantizer.quant_max)
    point = closest_point(target, gram, step, quantizer.quant_max, _SWEEPS)
    weight = point.reshape(conv.conv.weight.shape)
    if conv.bn is not None:
        weight = weight / bn_factor(conv.bn).double().reshape(-1, 1, 1, 1)
    conv.conv.weight.copy_(weight)
    conv.add_to_bias_(moments.shortfall(point).flatten().float())
    signal = float(moments.yy.sum().clamp_min(torch.finfo(torch.float64).tiny))
    off_grid = ((target - point) / step[..., None]).reshape(weight.shape)
    layer = LayerRounding(
        name,
        float((moments.variance(nearest) + moments.shortfall(nearest) ** 2).sum()) / signal,
        float(moments.variance(point).sum()) / signal,
        float((point != nearest).double().mean()),
    )
    return layer, off_grid.float()
