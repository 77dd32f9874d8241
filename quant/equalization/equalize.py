"""Cross-layer equalization (Nagel et al. 2019, arXiv:1906.04721), over whole channel classes instead of layer pairs.

The paper scales pairs of convolutions with a ReLU between, so that the ranges of their weights meet. Here a class
(``channel_classes``) may have several writers and readers, so that the decoder's branches, chains of residual
additions and the depth head are equalized too, through SiLU as well (``quant.scaled_silu``), with BatchNorm live or
folded; and the scales may be those of least output noise (``noise_model``).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, fx, nn

from quant.calibrate import Images
from quant.equalization.absorb import absorb_high_biases_
from quant.equalization.channel_classes import ChannelClasses, Use, channel_classes
from quant.equalization.noise_model import FIXED, NoiseModel, QuantizedTensor
from quant.equalization.plain_silus import elements, left_out
from quant.equalization.sensitivity import ChannelStats, sensitivity
from quant.graph import bn_factor, finish, module_of
from quant.recipe import ALL_8BIT, EqualizeSpec, WeightBits
from quant.scaled_silu import STEPS_PER_OCTAVE, ScaledSiLU, scale_silus
from quant.tracing.trace import trace

_LARGEST_STEP = 1e4
_SILU_FLOOR = -4.0
"""Further down SiLU hardly moves (by 0.07 in all), and range setting (``mse``) cuts values off."""
_LEVELS = 255
_DEAD = 1e-9
"""Above what a BatchNorm factor of zero leaves of a weight (``bn_factor``)."""
Ranges = Callable[[fx.GraphModule, Use], np.ndarray]
"""Of a use, one figure a channel (C,)."""


@torch.no_grad()
def equalize(
    network: nn.Module,
    spec: EqualizeSpec,
    images: Images,
    granularity: str,
    weight_bits: WeightBits = ALL_8BIT,
) -> fx.GraphModule:
    """A traced copy whose channel classes are balanced; the float function stays the same.

    Args:
        network: float network in eval mode, BatchNorm live or folded.
        spec: what to balance, and how.
        images: normalized calibration images Nx3xHxW (only the objective ``weights`` ignores them).
        granularity, weight_bits: of the weight quantizers to come (only the objective ``noise`` uses them).

    The images pass on the network's device; the rest is done on the CPU, and so is what is returned. Channels that
    are dead on either side keep their scale.
    """
    graph_module = trace(network, images[0:1]).eval()
    if spec.silu:
        scale_silus(graph_module)
    if spec.absorb:
        absorb_high_biases_(graph_module, images)
    classes = channel_classes(graph_module)
    if classes.count == 0:
        return finish(graph_module.cpu())
    if spec.objective == "noise":
        model = noise_model(graph_module, classes, images, spec.images, granularity, weight_bits)
        theta = model.solve()
        if spec.silu_loss_db > 0 and classes.silus:
            sizes = elements(graph_module, classes.silus, images[0:1])
            held = left_out(model, theta, classes, sizes, spec.silu_loss_db)
            theta = model.solve(held, theta)
        factor = np.exp(theta.numpy())
        _scale_(graph_module, classes, _bounded(factor, factor != 1.0, classes))
        return finish(graph_module)
    seen = _activation_ranges(graph_module, classes, images) if spec.objective == "activations" else None
    graph_module.cpu()
    for _ in range(spec.sweeps):
        read = _largest(graph_module, classes.consumers, classes.count, _input_ranges)
        written = seen if seen is not None else _largest(graph_module, classes.producers, classes.count, _output_ranges)
        alive = (written > _DEAD) & (read > _DEAD)
        factor = np.where(alive, np.sqrt(np.where(alive, read / np.where(alive, written, 1.0), 1.0)), 1.0)
        factor = _bounded(factor, alive, classes)
        _scale_(graph_module, classes, factor)
        if seen is not None:
            seen = seen * factor
        if np.abs(np.log(factor)).max() < 1e-3:
            break
    return finish(graph_module)


@torch.no_grad()
def noise_model(
    graph_module: fx.GraphModule,
    classes: ChannelClasses,
    images: Images,
    count: int,
    granularity: str,
    weight_bits: WeightBits = ALL_8BIT,
) -> NoiseModel:
    """The predicted output noise over the scales of the classes, from the first ``count`` images.

    Leaves ``graph_module`` on the CPU, where the model is.
    """
    inside = _inside(classes)
    derivatives = sensitivity(graph_module, [node for node in classes.values if node not in inside], images, count)
    graph_module.cpu()
    for node, stats in derivatives.values.items():
        silu = module_of(graph_module, next(iter(node.users)))
        if len(node.users) == 1 and isinstance(silu, ScaledSiLU):
            stats.low = stats.low.clamp(min=_SILU_FLOOR * silu.scale().flatten())
    tensors = [_activation(stats, classes.values[node]) for node, stats in derivatives.values.items()]
    reads = {use.block.conv: use.classes for use in classes.consumers}
    for use in classes.producers:
        conv, _ = _conv_and_bn(graph_module, use)
        shape = conv.groups, conv.out_channels // conv.groups, conv.in_channels // conv.groups
        tensors.append(
            QuantizedTensor(
                low=None,
                high=_folded_weight(graph_module, use).abs().amax((2, 3)).reshape(shape),
                squared=derivatives.weights[use.block.conv].sum((2, 3)).reshape(shape),
                up=torch.from_numpy(use.classes).reshape(conv.groups, -1),
                down=torch.from_numpy(reads.get(use.block.conv, np.full(conv.in_channels, FIXED))).reshape(
                    conv.groups, -1
                ),
                levels=2 ** (weight_bits.get(str(use.block.conv.target), 8) - 1) - 1,
                per_row=granularity == "per_channel",
            )
        )
    return NoiseModel(tensors, classes.count)


def _activation(stats: ChannelStats, classes: np.ndarray) -> QuantizedTensor:
    """A value's one quantizer, its channels as rows."""
    low, high = stats.low.clamp(max=0.0).neg(), stats.high.clamp(min=0.0)
    return QuantizedTensor(
        low=low.reshape(1, -1, 1),
        high=high.reshape(1, -1, 1),
        squared=stats.squared.reshape(1, -1, 1),
        up=torch.from_numpy(classes)[None],
        down=torch.full((1, 1), FIXED),
        levels=_LEVELS,
        per_row=False,
    )


def _inside(classes: ChannelClasses) -> set[fx.Node]:
    """Nodes within a convolution block: nothing is rounded before its last node."""
    nodes = ((use.block, node) for use in classes.producers for node in (use.block.conv, use.block.bn))
    return {node for block, node in nodes if node is not None and node is not block.last}


def _bounded(factor: np.ndarray, alive: np.ndarray, classes: ChannelClasses) -> np.ndarray:
    """The factors within bounds, centred, and in the steps of a ScaledSiLU where they pass through one."""
    factor = _centred(factor.clip(1.0 / _LARGEST_STEP, _LARGEST_STEP), alive, classes)
    stepped = np.zeros(classes.count + 1, dtype=bool)
    for node in classes.silus:
        stepped[classes.values[node]] = True
    return np.where(stepped[:-1], 2.0 ** (np.round(np.log2(factor) * STEPS_PER_OCTAVE) / STEPS_PER_OCTAVE), factor)


def _centred(factor: np.ndarray, alive: np.ndarray, classes: ChannelClasses) -> np.ndarray:
    """The factors with geometric mean 1 in each tensor: a common factor changes no quantization, only the scale."""
    group = np.arange(classes.count)
    changed = True
    while changed:  # classes that are written together, or tied by others that are, form one group
        changed = False
        for use in classes.producers:
            known = use.classes[use.classes >= 0]
            if len(known) and (group[known] != group[known].min()).any():
                group[np.isin(group, group[known])] = group[known].min()
                changed = True
    logs = np.log(factor)
    sums, counts = np.bincount(group, logs, classes.count), np.bincount(group, alive, classes.count)
    return np.where(alive, np.exp(logs - (sums / np.maximum(counts, 1))[group]), 1.0)


def _conv_and_bn(graph_module: fx.GraphModule, use: Use) -> tuple[nn.Conv2d, nn.BatchNorm2d | None]:
    conv, bn = module_of(graph_module, use.block.conv), module_of(graph_module, use.block.bn)
    assert isinstance(conv, nn.Conv2d)
    assert bn is None or isinstance(bn, nn.BatchNorm2d)
    return conv, bn


def _folded_weight(graph_module: fx.GraphModule, use: Use) -> Tensor:
    conv, bn = _conv_and_bn(graph_module, use)
    return conv.weight if bn is None else conv.weight * bn_factor(bn).reshape(-1, 1, 1, 1)


def _output_ranges(graph_module: fx.GraphModule, use: Use) -> np.ndarray:
    """Largest magnitude of the weights that write each output channel (out,)."""
    return _folded_weight(graph_module, use).abs().amax((1, 2, 3)).double().numpy()


def _input_ranges(graph_module: fx.GraphModule, use: Use) -> np.ndarray:
    """Largest magnitude of the weights that read each input channel (in,)."""
    conv, _ = _conv_and_bn(graph_module, use)
    weight = _folded_weight(graph_module, use).abs().amax((2, 3))  # (out, in / groups)
    return weight.reshape(conv.groups, -1, weight.shape[1]).amax(1).reshape(-1).double().numpy()


def _largest(graph_module: fx.GraphModule, uses: tuple[Use, ...], count: int, ranges: Ranges) -> np.ndarray:
    """For each class the largest of ``ranges`` over its uses (count,)."""
    result = np.zeros(count)
    for use in uses:
        known = use.classes >= 0
        if known.any():
            np.maximum.at(result, use.classes[known], ranges(graph_module, use)[known])
    return result


def _scale_(graph_module: fx.GraphModule, classes: ChannelClasses, factor: np.ndarray) -> None:
    """Multiply every class's channels by ``factor`` where they are written, and undo it where they are read."""
    for use in classes.producers:
        scale = _per_channel(factor, use.classes)
        conv, bn = _conv_and_bn(graph_module, use)
        target: nn.Conv2d | nn.BatchNorm2d = conv if bn is None else bn
        target.weight.mul_(scale.reshape(-1, *[1] * (target.weight.dim() - 1)))
        if target.bias is not None:
            target.bias.mul_(scale)
    for use in classes.consumers:
        conv, _ = _conv_and_bn(graph_module, use)
        scale = _per_channel(1.0 / factor, use.classes).reshape(conv.groups, 1, -1, 1, 1)
        _, inputs, *kernel = conv.weight.shape
        conv.weight.copy_((conv.weight.reshape(conv.groups, -1, inputs, *kernel) * scale).reshape(conv.weight.shape))
    for node in classes.silus:
        silu = module_of(graph_module, node)
        assert isinstance(silu, ScaledSiLU)
        silu.scale_((_per_channel(factor, classes.values[node]).log2() * STEPS_PER_OCTAVE).round())


def _per_channel(factor: np.ndarray, classes: np.ndarray) -> Tensor:
    return torch.from_numpy(np.where(classes >= 0, factor[classes], 1.0)).float()


class _RangeRecorder(fx.Interpreter):
    """Runs the graph and keeps the largest magnitude that each class shows where int8 would round it."""

    def __init__(self, graph_module: fx.GraphModule, classes: ChannelClasses) -> None:
        super().__init__(graph_module)
        self.classes = classes
        self.ranges = np.zeros(classes.count)
        self.skipped = _inside(classes)

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        classes = self.classes.values.get(n)
        if classes is not None and n not in self.skipped and isinstance(value, Tensor):
            largest = value.abs().amax((0, 2, 3)).double().cpu().numpy()
            known = classes >= 0
            np.maximum.at(self.ranges, classes[known], largest[known])
        return value


def _activation_ranges(
    graph_module: fx.GraphModule, classes: ChannelClasses, images: Images, batch_size: int = 8
) -> np.ndarray:
    """Largest magnitude of each class over the images (count,)."""
    recorder = _RangeRecorder(graph_module, classes)
    device = next(graph_module.parameters()).device
    for start in range(0, len(images), batch_size):
        recorder.run(images[start : start + batch_size].to(device))
    return recorder.ranges
