"""Mixed precision from the analysis: the sites that make the most noise stay in float, or get activations of 16 bits.

Sites are ranked by the noise that each makes alone. The ranking is cut where a target is met, by binary search (Pandey
et al. 2023, arXiv:2302.05397).

A weight that stays float makes its convolution a float one. A value that stays float is not rounded: the operator that
gives it and those that read it compute in float. What that costs is measured: the size and latency of the converted
network.
"""

import copy
import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from model.errors import InputError
from model.noise import comparable, sqnr_db
from model.progress import Progress, ignore_progress
from model.tasks.nested import Nested, each, joined
from quant.analysis.site_errors import rank_sites
from quant.calibrate import Images
from quant.prepare import quantizers
from quant.ranges import MinMaxObserver
from quant.recipe import MixedPrecisionSpec
from quant.state import require_state


@dataclass(frozen=True)
class FloatSites:
    """Which sites stay in float or are widened (worst first), of how many, and what this reaches on the images.

    ``metric_loss`` is None without a target for it. ``tried`` are the counts that were measured, in turn.
    """

    names: tuple[str, ...]
    sites: int
    sqnr_db: float
    metric_loss: float | None
    tried: tuple[int, ...]


def keep_float(
    prepared: fx.GraphModule, names: Iterable[str], original: fx.GraphModule | None = None
) -> fx.GraphModule:
    """A copy whose quantizers of these names are off; raises InputError for a name that no quantizer has.

    Where steps after calibration (rounding, bias correction) have written into weights and biases,
    ``original`` is the calibrated network: a weight that stays float is then its weight, with its bias.
    """
    mixed = copy.deepcopy(prepared)
    named = quantizers(mixed)
    for name in names:
        if name not in named:
            near = difflib.get_close_matches(name, named, 1)
            hint = f"Did you mean {near[0]}?" if near else ""
            raise InputError(
                "mixed_precision", "is not a site of this network", "a quantizer's name", hint, value=repr(name)
            )
        named[name].set_mode("off")
        if original is not None and named[name].weight:
            conv = name.removesuffix(".weight_quantizer")
            mixed.get_submodule(conv).load_state_dict(original.get_submodule(conv).state_dict())
    return mixed


@torch.no_grad()
def widen_activations(prepared: fx.GraphModule, names: Iterable[str], bits: int, images: Images) -> fx.GraphModule:
    """A copy whose activation quantizers of these names have ``bits``, over all that the ``images`` show there."""
    mixed = copy.deepcopy(prepared)
    named = quantizers(mixed)
    widened = [named[name] for name in names]
    for quantizer in widened:
        quantizer.set_mode("calibrate", MinMaxObserver())
    _outputs(mixed, images)
    for quantizer in widened:
        quantizer.widen_(bits)
        if quantizer.observer is not None:  # none looks at a range that is fixed
            low, high = quantizer.observer.limits()
            quantizer.set_range(torch.minimum(low, quantizer.low), torch.maximum(high, quantizer.high))
        quantizer.set_mode("freeze")
    return mixed


@torch.no_grad()
def keep_worst_float(
    prepared: fx.GraphModule,
    spec: MixedPrecisionSpec,
    images: Images,
    judge: Callable[[Nested], float] | None = None,
    *,
    measured_on: Images | None = None,
    original: fx.GraphModule | None = None,
    progress: Progress = ignore_progress,
) -> tuple[fx.GraphModule, FloatSites]:
    """A copy in which the worst sites, ranked by isolated error, stay in float, or get ``spec.activation_bits``.

    Args:
        prepared: quantizers frozen at their ranges, in eval mode.
        spec: how many; with a target the smallest number of ranked sites that reaches it, all of them off together.
            The binary search always ends: with all sites off it is the float network, and wide activations end with
            the last of them, even where that misses the target.
        images: normalized, Nx3xHxW, on which the sites are ranked, and which wide ranges hold.
        measured_on: images on which the targets are measured, by default the same; a network looks better on those that
            its ranges were calibrated on, or its weights rounded for.
        judge: a metric of the outputs on the images that are measured on, more is better, for ``max_metric_loss``.
        original: see ``keep_float``.

    Raises QuantizerStateError where a quantizer still observes or averages, InputError where there are fewer sites
    than ``float_sites``, ValueError for a missing ``judge``.
    """
    require_state(prepared, "evaluate")
    if spec.max_metric_loss is not None and judge is None:
        raise ValueError("max_metric_loss needs a metric to judge by")
    sites = rank_sites(prepared, images, progress, original=original)
    measured_on = images if measured_on is None else measured_on
    reference = _outputs(keep_float(prepared, sites, original), measured_on)
    bits, named = spec.activation_bits, quantizers(prepared)
    ranking = sites if bits is None else tuple(name for name in sites if not named[name].weight)

    def mixed(count: int) -> fx.GraphModule:
        if bits is None:
            return keep_float(prepared, ranking[:count], original)
        return widen_activations(prepared, ranking[:count], bits, images)

    if spec.target_sqnr_db is None and spec.max_metric_loss is None and spec.float_sites > len(ranking):
        limit, value = f"at most {len(ranking)} sites", repr(spec.float_sites)
        raise InputError("mixed_precision.float_sites", "is out of range", limit, value=value)
    measured: dict[int, tuple[float, float | None]] = {}

    def measure(count: int) -> tuple[float, float | None]:
        if count not in measured:
            output = _outputs(mixed(count), measured_on)
            loss = None
            if spec.max_metric_loss is not None and judge is not None:
                loss = judge(reference) - judge(output)
            measured[count] = (sqnr_db(*comparable(reference, output)), loss)
        return measured[count]

    count = spec.float_sites
    if spec.target_sqnr_db is not None or spec.max_metric_loss is not None:
        count = _smallest(len(ranking), lambda tried: _meets(spec, *measure(tried)))
    reached, loss = measure(count)
    chosen = FloatSites(ranking[:count], len(ranking), reached, loss, tuple(measured))
    return mixed(count), chosen


def _meets(spec: MixedPrecisionSpec, reached_db: float, metric_loss: float | None) -> bool:
    if spec.target_sqnr_db is not None and reached_db < spec.target_sqnr_db:
        return False
    return spec.max_metric_loss is None or metric_loss is None or metric_loss <= spec.max_metric_loss


def _smallest(most: int, enough: Callable[[int], bool]) -> int:
    """The smallest count that is ``enough``, by binary search; ``most`` is taken to be enough."""
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low


def _outputs(network: fx.GraphModule, images: Images, batch_size: int = 8) -> Nested:
    device = next(network.parameters()).device
    starts = range(0, len(images), batch_size)
    return joined([each(Tensor.cpu, network(images[start : start + batch_size].to(device))) for start in starts])
