"""What changes while a network is fine-tuned: the learning rate, and which ranges and statistics still move."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from quant.prepare import quant_convs, quantizers
from quant.recipe import QatSpec

_WARM_UP = 0.1
"""Of the steps, in which the learning rate rises: Adam's first steps have no average to go by."""
_LOWEST = 0.01
"""Of the learning rate, at the end of the cosine."""
_PLATEAU_FACTOR, _PLATEAU_PATIENCE = 0.3, 2


def schedule(
    prepared: nn.Module, optimizer: torch.optim.Optimizer, spec: QatSpec, scores: Sequence[float], steps: range
) -> Callable[[int], None]:
    """What to do before step i of an epoch: set the learning rate, and freeze what is due.

    Args:
        scores: the monitor of the epochs so far on validation images, more is better, for ``plateau``.
        steps: those of this epoch, by their numbers in the whole training; they all have the same length.
    """
    plateau = _PLATEAU_FACTOR ** _plateaus(scores) if spec.schedule == "plateau" else 1.0
    total = len(steps) * spec.epochs
    rates = learning_rates(spec, total)

    def before(step: int) -> None:
        done = steps[step] / total
        optimizer.param_groups[0]["lr"] = rates[steps[step]] * plateau
        if done >= spec.freeze_ranges_after:
            freeze_ranges_(prepared, weights=False)
        if done >= spec.freeze_bn_after:
            for conv in quant_convs(prepared).values():
                conv.freeze_bn_()
        if done >= max(spec.freeze_ranges_after, spec.freeze_bn_after):
            freeze_ranges_(prepared, weights=True)

    return before


def learning_rates(spec: QatSpec, total: int) -> list[float]:
    """The rate of each of ``total`` steps, in steps of a weight's grid; they add up to ``spec.travel``.

    They rise over the first tenth and then fall along a cosine to a hundredth, or stay for the schedule ``plateau``.
    """
    rising = math.ceil(_WARM_UP * total)
    shape = []
    for step in range(total):
        cosine = _LOWEST + (1.0 - _LOWEST) * 0.5 * (1.0 + math.cos(math.pi * step / total))
        shape.append(min(1.0, (step + 1) / rising) * (cosine if spec.schedule == "cosine" else 1.0))
    return [spec.travel * part / sum(shape) for part in shape]


def _plateaus(scores: Sequence[float]) -> int:
    """How often the best of the scores was not beaten for longer than the patience."""
    count = waited = 0
    for index, score in enumerate(scores):
        waited = 0 if score > max(scores[:index], default=-math.inf) else waited + 1
        if waited > _PLATEAU_PATIENCE:
            count, waited = count + 1, 0
    return count


@torch.no_grad()
def freeze_ranges_(prepared: nn.Module, weights: bool) -> None:
    """Hold the moving ranges of activations, with ``weights`` those of weights too (each at its own weight's range)."""
    for conv in quant_convs(prepared).values() if weights else ():
        if conv.weight_quantizer.mode == "moving_average":
            conv.weight_quantizer.set_range_from_weight(conv.folded()[0], "minmax")
    for quantizer in quantizers(prepared).values():
        if quantizer.mode == "moving_average" and (weights or not quantizer.weight):
            quantizer.set_mode("freeze")
