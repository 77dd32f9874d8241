"""Quantization-aware training (Jacob et al. 2018, arXiv:1712.05877), cold or from calibrated ranges."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from model.metrics import depth_loss
from model.pack import Pack
from model.training import Progress, epoch_batches, in_epoch, load_epoch, save_epoch, train_epoch, validate
from quant.calibrate import set_weight_ranges_
from quant.inspect import require_state
from quant.prepare import prepare, quant_convs, quantizers
from quant.recipe import CalibrateSpec, QatSpec

_GRADIENT_CLIP = 1.0
_BN_MOMENTUM = 0.01
"""Small batches are poor statistics: a float network's own 0.1 would carry their noise into the folded weights."""


def prepare_cold(network: nn.Module, granularity: str, spec: CalibrateSpec) -> fx.GraphModule:
    """A prepared copy of the float network whose activation ranges follow the training data from the first step."""
    prepared = prepare(network, granularity)
    set_weight_ranges_(prepared, spec.weight_range)
    for quantizer in quantizers(prepared).values():
        quantizer.set_mode("freeze" if quantizer.weight else "follow")
    return prepared


def finetune(
    prepared: fx.GraphModule,
    teacher: nn.Module,
    pack: Pack,
    spec: QatSpec,
    *,
    weight_range: str,
    seed: int,
    device: torch.device,
    scratch: Path | None,
    progress: Progress,
) -> tuple[list[dict[str, float]], dict[str, int | bool]]:
    """Train ``prepared`` in place with fake quantization on, and leave it with its best epoch, in eval mode.

    Args:
        prepared: activation quantizers in mode follow (cold start) or freeze (calibrated ranges, kept).
        teacher: the float network; its prediction is mixed into the loss by ``spec.distillation``.
        pack: train images are augmented; the validation images choose the best epoch.
        weight_range: with ``minmax`` weight ranges follow the weights until all is frozen; otherwise they stay.
        scratch: folder in which every finished epoch is kept, so that a rerun resumes.

    Returns the history, an entry an epoch (validation metrics are those of the fake-quantized network), and the
    quantizer state that was asserted at the start. Activation ranges freeze after ``freeze_ranges_after`` of all
    steps, BatchNorm statistics (and the weight ranges, which depend on them) after ``freeze_bn_after``; the
    learning rate falls along a cosine to a hundredth.
    """
    prepared.to(device).train()
    teacher.to(device).eval()
    if weight_range == "minmax":
        for conv in quant_convs(prepared).values():
            conv.weight_quantizer.set_mode("follow")
    for conv in quant_convs(prepared).values():
        if conv.bn is not None:
            conv.bn.momentum = _BN_MOMENTUM
    parameters = [p for p in prepared.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, spec.learning_rate, weight_decay=spec.weight_decay)
    state = load_epoch(scratch)
    history: list[dict[str, float]] = state["history"] if state else []
    best: dict[str, Tensor] = state["best"] if state else {}
    if state:
        prepared.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        for name, quantizer in quantizers(prepared).items():
            quantizer.set_mode(state["modes"][name])
    asserted = require_state(prepared, "finetune")
    batch_counts = len(epoch_batches(pack.size("train"), spec.images_per_epoch, spec.batch_size, 0))
    steps = batch_counts * spec.epochs
    for epoch in range(len(history), spec.epochs):
        prepared.train()
        epoch_seed = seed * 100_003 + epoch
        loss = train_epoch(
            prepared,
            pack,
            optimizer,
            epoch_batches(pack.size("train"), spec.images_per_epoch, spec.batch_size, epoch_seed),
            device=device,
            loss=_distillation_loss(teacher, spec.distillation),
            gradient_clip=_GRADIENT_CLIP,
            mixed_precision=False,  # bfloat16 is coarser than the int8 steps to be simulated
            seed=epoch_seed,
            on_step=_schedule(prepared, optimizer, spec, first_step=epoch * batch_counts, steps=steps),
            progress=partial(in_epoch, progress, epoch + 1, spec.epochs),
        )
        metrics = _validate_frozen(prepared, pack, device)
        if not history or metrics["ssim"] > max(row["val_ssim"] for row in history):
            best = {name: value.detach().cpu().clone() for name, value in prepared.state_dict().items()}
        history.append(
            {"epoch": epoch + 1, "train_loss": loss, "learning_rate": optimizer.param_groups[0]["lr"]}
            | {f"val_{name}": value for name, value in metrics.items()}
        )
        progress({"epochs": spec.epochs, **history[-1]})
        save_epoch(
            scratch,
            history=history,
            best=best,
            network=prepared.state_dict(),
            optimizer=optimizer.state_dict(),
            modes={name: quantizer.mode for name, quantizer in quantizers(prepared).items()},
        )
    prepared.load_state_dict(best)
    for quantizer in quantizers(prepared).values():
        quantizer.set_mode("freeze")  # at the ranges of the best epoch
    prepared.eval()
    return history, asserted


def _schedule(
    prepared: nn.Module, optimizer: torch.optim.Optimizer, spec: QatSpec, first_step: int, steps: int
) -> Callable[[int], None]:
    def on_step(step: int) -> None:
        done = (first_step + step) / steps
        rate = spec.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * done)))
        optimizer.param_groups[0]["lr"] = rate
        if done >= spec.freeze_ranges_after:
            _freeze_(prepared, weights=False)
        if done >= spec.freeze_bn_after:
            for conv in quant_convs(prepared).values():
                conv.freeze_bn_()
        if done >= max(spec.freeze_ranges_after, spec.freeze_bn_after):
            _freeze_(prepared, weights=True)

    return on_step


def _distillation_loss(teacher: nn.Module, weight: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Depth loss against the truth and, by ``weight``, the float network (Hinton et al. 2015, arXiv:1503.02531)."""

    def loss(inputs: Tensor, prediction: Tensor, target: Tensor) -> Tensor:
        value = depth_loss(prediction, target)
        if weight == 0.0:
            return value
        with torch.no_grad():
            taught = teacher(inputs)
        return (1.0 - weight) * value + weight * depth_loss(prediction, taught)

    return loss


@torch.no_grad()
def _freeze_(prepared: nn.Module, weights: bool) -> None:
    """Hold the ranges of activations, or of weights too, where they are now; a followed weight keeps its own range."""
    if weights:
        for conv in quant_convs(prepared).values():
            if conv.weight_quantizer.mode == "follow":
                conv.weight_quantizer.set_range_from_weight(conv.folded()[0], "minmax")
    for quantizer in quantizers(prepared).values():
        if weights or not quantizer.weight:
            quantizer.set_mode("freeze")


def _validate_frozen(prepared: nn.Module, pack: Pack, device: torch.device) -> dict[str, float]:
    """Validation metrics of the fake-quantized network with all ranges held; the modes are put back."""
    modes = {name: quantizer.mode for name, quantizer in quantizers(prepared).items()}
    _freeze_(prepared, weights=True)
    metrics = validate(prepared, pack, device)
    for name, quantizer in quantizers(prepared).items():
        quantizer.set_mode(modes[name])
    return metrics
