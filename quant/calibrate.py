"""Calibration: run un-augmented images through the float function and set all quantizer ranges from what it gives."""

from contextlib import closing
from typing import Protocol

import torch
from torch import Tensor, fx

from model.data.ahead import slices_ahead
from model.progress import Progress, ignore_progress
from quant.prepare import elementwise_consumers, prepare, quant_convs, quantizers
from quant.ranges import ElementwiseConsumer, make_observer
from quant.recipe import ALL_8BIT, CalibrateSpec, WeightBits
from quant.scaled_silu import ScaledSiLU
from quant.state import require_state
from quant.tracing.trace import trace


class Images(Protocol):
    """Normalized images by slice: a tensor Nx3xHxW, or what reads such slices from disk."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, where: slice) -> Tensor:
        """Some of them."""


@torch.no_grad()
def calibrate(
    network: torch.nn.Module,
    granularity: str,
    spec: CalibrateSpec,
    images: Images,
    progress: Progress = ignore_progress,
    weight_bits: WeightBits = ALL_8BIT,
) -> fx.GraphModule:
    """A prepared copy of the float ``network``, in eval mode, its quantizers frozen at the calibrated ranges.

    ``images`` are normalized and go to the network's device batch by batch. Raises QuantizerStateError if
    dropout or batch statistics are live.
    """
    if not len(images):
        raise ValueError("calibration needs at least one image")
    device = next(network.parameters()).device
    prepared = prepare(trace(network, images[0:1]), granularity, weight_bits).to(device).eval()
    set_weight_ranges_(prepared, spec.weight_range)
    activations = elementwise_consumers(prepared)
    for name, quantizer in quantizers(prepared).items():
        consumer = _consumer(activations.get(name))
        observer = None if quantizer.weight else make_observer(spec.activation_range, spec.percentile, consumer)
        quantizer.set_mode("calibrate", observer)
    require_state(prepared, "calibrate")
    done = 0
    with closing(slices_ahead(images.__getitem__, len(images), spec.batch_size, device)) as batches:
        for batch in batches:
            prepared(batch)
            done += len(batch)
            progress({"step": done, "steps": len(images)})
    for quantizer in quantizers(prepared).values():
        if quantizer.observer is not None:
            quantizer.set_range(*(limit.to(quantizer.low.device) for limit in quantizer.observer.limits()))
        quantizer.set_mode("freeze")
    return prepared


def _consumer(activation: torch.nn.Module | None) -> ElementwiseConsumer | None:
    if isinstance(activation, ScaledSiLU):
        return activation.consumer()
    return None if activation is None else ElementwiseConsumer(lambda values, kinds: activation(values))


@torch.no_grad()
def set_weight_ranges_(prepared: torch.nn.Module, method: str) -> None:
    """Set the range of every weight quantizer from its folded weight."""
    for conv in quant_convs(prepared).values():
        conv.weight_quantizer.set_range_from_weight(conv.folded()[0], method)
