"""Quantization-aware training (Jacob et al. 2018, arXiv:1712.05877), cold or from calibrated ranges."""

import math
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from model.data.augment import augment
from model.data.pack import Pack
from model.images import normalize
from model.metrics import depth_loss
from model.training import Progress, epoch_batches, in_epoch, load_epoch, save_epoch, train_epoch, validate
from quant.calibrate import set_weight_ranges_
from quant.fake_quantize import current_mode
from quant.prepare import prepare, quant_convs, quantizers
from quant.qat.range_adam import RangeAdam, range_units
from quant.ranges import MovingAverageObserver
from quant.recipe import CalibrateSpec, QatSpec
from quant.state import require_state

_BN_MOMENTUM = 0.01
"""Small batches are poor statistics: a float network's own 0.1 would carry their noise into the folded weights."""
_WARM_UP = 0.1
"""Of the steps, in which the learning rate rises: Adam's first steps have no average to go by."""
_PLATEAU_FACTOR, _PLATEAU_PATIENCE = 0.3, 2


def prepare_for_qat(network: nn.Module, granularity: str, spec: CalibrateSpec) -> fx.GraphModule:
    """A prepared copy of the float network whose ranges will follow the training data, and weights theirs by minmax."""
    prepared = prepare(network, granularity)
    set_weight_ranges_(prepared, spec.weight_range)
    for quantizer in quantizers(prepared).values():
        quantizer.set_mode("freeze" if quantizer.weight and spec.weight_range != "minmax" else "moving_average")
    return prepared


def finetune(
    prepared: fx.GraphModule,
    teacher: nn.Module,
    pack: Pack,
    spec: QatSpec,
    *,
    seed: int,
    device: torch.device,
    scratch: Path | None,
    progress: Progress,
    kept_float: Collection[str] = (),
) -> tuple[list[dict[str, float]], dict[str, int | bool]]:
    """Train ``prepared`` in place with fake quantization on, and leave it with its best epoch, in eval mode.

    Args:
        prepared: each quantizer in mode follow (its range will be watched, then follow) or freeze (a calibrated
            range that stays); with ``spec.learned_scales`` both become parameters.
        teacher: the float network; its prediction is mixed into the loss by ``spec.distillation``.
        pack: train images are augmented; the validation images choose the best epoch.
        scratch: folder in which every finished epoch is kept, so that a rerun resumes.
        kept_float: names of quantizers that are off on purpose, and stay off.

    Returns the history, an entry an epoch (validation metrics are those of the fake-quantized network), and the
    quantizer state that was asserted at the start. Epoch 0 is the network before the first step: it is what comes
    back where no epoch is better on the validation images.

    A cold start first watches ``observe_batches`` of the training data with nothing quantized. Ranges that follow
    freeze after ``freeze_ranges_after`` of all steps, BatchNorm statistics after ``freeze_bn_after``, followed
    weight ranges, which depend on both, with the later one.
    """
    prepared.to(device).train()
    teacher.to(device).eval()
    for conv in quant_convs(prepared).values():
        if conv.bn is not None:
            conv.bn.momentum = _BN_MOMENTUM
            if spec.freeze_bn_after == 0.0:
                conv.freeze_bn_()
    asserted = require_state(prepared, "finetune", kept_float)
    state = load_epoch(scratch)
    if state is None:
        _observe_(prepared, pack, spec, seed, device)
    if spec.learned_scales:
        _set_modes_(prepared, "learn")
    optimizer = RangeAdam(range_units(prepared), spec.learning_rate, spec.weight_decay)
    optimizer.register_step_post_hook(lambda *_: _project_(prepared))
    history: list[dict[str, float]] = []
    best: dict[str, Tensor] = {}
    if state is not None:
        history, best = state["history"], state["best"]
        prepared.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        _put_back_(prepared, {name: current_mode(mode) for name, mode in state["modes"].items()})
    steps = len(_batches(pack, spec, 0))
    for epoch in range(len(history), spec.epochs + 1):
        row: dict[str, float] = {"epoch": epoch}
        if epoch > 0:
            prepared.train()
            epoch_seed = _epoch_seed(seed, epoch)
            row["train_loss"] = train_epoch(
                prepared,
                pack,
                optimizer,
                _batches(pack, spec, epoch_seed),
                device=device,
                loss=_distillation_loss(teacher, spec.distillation),
                gradient_clip=math.inf,  # the optimizer does it, in its units
                mixed_precision=False,  # bfloat16 is coarser than the int8 steps to be simulated
                seed=epoch_seed,
                on_step=_schedule(prepared, optimizer, spec, history, (epoch - 1) * steps, spec.epochs * steps),
                progress=partial(in_epoch, progress, epoch, spec.epochs),
            )
            row["learning_rate"] = optimizer.param_groups[0]["lr"]
            _require_finite(prepared, epoch)
        metrics = _validate_frozen(prepared, pack, device)
        if not history or metrics["ssim"] > max(past["val_ssim"] for past in history):
            best = {name: value.detach().cpu().clone() for name, value in prepared.state_dict().items()}
        history.append(row | {f"val_{name}": value for name, value in metrics.items()})
        progress({"epochs": spec.epochs, **history[-1]})
        save_epoch(
            scratch,
            history=history,
            best=best,
            network=prepared.state_dict(),
            optimizer=optimizer.state_dict(),
            modes=_modes(prepared),
        )
    prepared.load_state_dict(best)
    _set_modes_(prepared, "freeze")  # at the ranges of the best epoch
    prepared.eval()
    return history, asserted


def _epoch_seed(seed: int, epoch: int) -> int:
    return seed * 100_003 + epoch - 1


def _batches(pack: Pack, spec: QatSpec, epoch_seed: int) -> list[Tensor]:
    return epoch_batches(pack.size("train"), spec.images_per_epoch, spec.batch_size, epoch_seed)


def _modes(prepared: nn.Module) -> dict[str, str]:
    return {name: quantizer.mode for name, quantizer in quantizers(prepared).items()}


def _put_back_(prepared: nn.Module, modes: dict[str, str]) -> None:
    for name, quantizer in quantizers(prepared).items():
        quantizer.set_mode(modes[name])


def _set_modes_(prepared: nn.Module, mode: str) -> None:
    """Set the mode of all quantizers but those that are off."""
    for quantizer in quantizers(prepared).values():
        if quantizer.mode != "off":
            quantizer.set_mode(mode)


@torch.no_grad()
def _observe_(prepared: fx.GraphModule, pack: Pack, spec: QatSpec, seed: int, device: torch.device) -> None:
    """Set the activation ranges that will follow the data from the first batches of it, with nothing quantized."""
    modes = _modes(prepared)
    watched = [q for q in quantizers(prepared).values() if q.mode == "moving_average" and not q.weight]
    if not watched:
        return
    _set_modes_(prepared, "calibrate")
    for quantizer in watched:
        quantizer.set_mode("calibrate", MovingAverageObserver())
    prepared.eval()
    torch.manual_seed(_epoch_seed(seed, 1))
    for batch in _batches(pack, spec, _epoch_seed(seed, 1))[: spec.observe_batches]:
        images, depth = pack.images("train", batch.tolist()), pack.depth("train", batch.tolist())
        prepared(normalize(augment(images.to(device), depth.to(device))[0]))
    for quantizer in watched:
        assert quantizer.observer is not None
        quantizer.set_range(*quantizer.observer.limits())
    _put_back_(prepared, modes)


def _project_(prepared: nn.Module) -> None:
    for quantizer in quantizers(prepared).values():
        if quantizer.learned is not None:
            quantizer.learned.project_()


def _require_finite(prepared: nn.Module, epoch: int) -> None:
    """A step too large leaves infinite parameters that frozen quantizers clamp, so that the loss stays finite."""
    wrong = [name for name, value in prepared.named_parameters() if not torch.isfinite(value).all()]
    if wrong:
        raise FloatingPointError(f"epoch {epoch} left {wrong[0]} not finite; lower qat.learning_rate")


def _schedule(
    prepared: nn.Module,
    optimizer: torch.optim.Optimizer,
    spec: QatSpec,
    history: Sequence[dict[str, float]],
    first_step: int,
    steps: int,
) -> Callable[[int], None]:
    plateau = _PLATEAU_FACTOR ** _plateaus([row["val_ssim"] for row in history])

    def on_step(step: int) -> None:
        done = (first_step + step) / steps
        cosine = 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * done))
        warm = min(1.0, (first_step + step + 1) / math.ceil(_WARM_UP * steps))
        rate = spec.learning_rate * warm * (cosine if spec.schedule == "cosine" else plateau)
        optimizer.param_groups[0]["lr"] = rate
        if done >= spec.freeze_ranges_after:
            _freeze_(prepared, weights=False)
        if done >= spec.freeze_bn_after:
            for conv in quant_convs(prepared).values():
                conv.freeze_bn_()
        if done >= max(spec.freeze_ranges_after, spec.freeze_bn_after):
            _freeze_(prepared, weights=True)

    return on_step


def _plateaus(scores: Sequence[float]) -> int:
    """How often the best of the scores was not beaten for longer than the patience."""
    count = waited = 0
    for index, score in enumerate(scores):
        waited = 0 if score > max(scores[:index], default=-math.inf) else waited + 1
        if waited > _PLATEAU_PATIENCE:
            count, waited = count + 1, 0
    return count


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
    """Hold the ranges that follow, of activations or of weights too; a followed weight keeps its own range."""
    for conv in quant_convs(prepared).values() if weights else ():
        if conv.weight_quantizer.mode == "moving_average":
            conv.weight_quantizer.set_range_from_weight(conv.folded()[0], "minmax")
    for quantizer in quantizers(prepared).values():
        if quantizer.mode == "moving_average" and (weights or not quantizer.weight):
            quantizer.set_mode("freeze")


def _validate_frozen(prepared: nn.Module, pack: Pack, device: torch.device) -> dict[str, float]:
    """Validation metrics of the fake-quantized network with all ranges held; the modes are put back."""
    modes = _modes(prepared)
    _freeze_(prepared, weights=True)
    metrics = validate(prepared, pack, device)
    _put_back_(prepared, modes)
    return metrics
