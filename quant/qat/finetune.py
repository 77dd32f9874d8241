"""Quantization-aware training (Jacob et al. 2018, arXiv:1712.05877), cold or from calibrated ranges."""

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from model.epochs import (
    Loss,
    Row,
    Stateful,
    Steps,
    TrainingRun,
    augmented,
    best_epoch,
    epoch_batches,
    epoch_pictures,
    epoch_seed,
    run_epochs,
    train_epoch,
)
from model.placement import place_, take_back_
from model.step_memory import make_room_
from model.tasks.nested import Nested
from model.tasks.task import Task
from model.training import validate
from quant.calibrate import set_weight_ranges_
from quant.fake_quantize import current_mode
from quant.prepare import prepare, quantizers
from quant.qat.averaging import Averaged
from quant.qat.bn_statistics import MovingGrids, Statistics, live_convs, restart_statistics_
from quant.qat.grid_adam import GridAdam, grid_units
from quant.qat.integers import changed, integer_weights
from quant.qat.schedule import freeze_ranges_, schedule
from quant.ranges import MovingAverageObserver
from quant.recipe import ALL_8BIT, CalibrateSpec, QatSpec, WeightBits
from quant.state import require_state

_WINDOW = 0.2
"""Of all steps, over which weights are averaged."""


def prepare_for_qat(
    network: nn.Module, granularity: str, spec: CalibrateSpec, weight_bits: WeightBits = ALL_8BIT
) -> fx.GraphModule:
    """A prepared copy of the float network whose activation ranges are moving averages of the training data.

    Weight ranges are those of the weights as they move (``minmax``), or fixed by another ``spec.weight_range``.
    """
    prepared = prepare(network, granularity, weight_bits)
    set_weight_ranges_(prepared, spec.weight_range)
    for quantizer in quantizers(prepared).values():
        quantizer.set_mode("freeze" if quantizer.weight and spec.weight_range != "minmax" else "moving_average")
    return prepared


@dataclass(frozen=True)
class Finetuned:
    """What a training did.

    ``history``: an entry an epoch; validation metrics are those of the fake-quantized network. ``asserted``: the
    quantizer state at the start. Of the network that is handed on: ``best_epoch``, 0 where that is the start;
    ``weights_changed``, the share of its integer weights that differ from the start's, 0 to 1; ``bn_live_steps``, the
    steps behind it that moved BatchNorm statistics.
    """

    history: list[Row]
    asserted: dict[str, int | bool]
    best_epoch: int
    weights_changed: float
    bn_live_steps: int


def finetune(
    prepared: fx.GraphModule, teacher: nn.Module, spec: QatSpec, run: TrainingRun, kept_float: Collection[str] = ()
) -> Finetuned:
    """Train ``prepared`` in place with fake quantization on, and leave it with its best epoch, in eval mode.

    Args:
        prepared: each quantizer in mode moving_average (its range is observed first) or freeze (a calibrated range
            that stays); with ``spec.learned_scales`` both become parameters.
        teacher: the float network; its prediction is mixed into the loss by ``spec.distillation``.
        kept_float: names of quantizers that are off on purpose, and stay off.

    Epoch 0 is the network before the first step: it is what comes back where no epoch is better on the validation
    images. The network of the others is an average over steps (``Averaged``).

    A cold start first observes ``observe_batches`` of the training data with nothing quantized; where BatchNorm learns,
    its statistics start from the same batches. Moving ranges freeze after ``freeze_ranges_after`` of all steps,
    BatchNorm statistics after ``freeze_bn_after``, moving weight ranges, which depend on both, with the later one.
    """
    make_room_(prepared, run, spec.batch_size)
    for network in (prepared, teacher):
        place_(network, run.device)
    prepared.train()
    teacher.eval()
    if spec.freeze_bn_after == 0.0:
        for conv in live_convs(prepared).values():
            conv.freeze_bn_()
    asserted = require_state(prepared, "finetune", kept_float)
    _observe_(prepared, spec, run)  # a resumed run too: which zero points learn depends on the first ranges
    start = integer_weights(prepared)
    if spec.learned_scales:
        _set_modes_(prepared, "learn")
    optimizer = GridAdam(grid_units(prepared), spec.travel, spec.weight_decay)
    loss, length = _distillation_loss(teacher, spec.distillation, run.task), len(epoch_batches(run, spec, 1))
    averaged, grids = Averaged(prepared, _WINDOW * spec.epochs * length), MovingGrids(prepared)
    statistics = Statistics(prepared)

    def after_step(*_: object) -> None:
        _project_(prepared)
        grids.follow_()
        averaged.update_()
        statistics.count_()

    optimizer.register_step_post_hook(after_step)

    def one_epoch(number: int, history: Sequence[Row]) -> Row:
        row: Row = {"epoch": number}
        if number > 0:
            prepared.train()
            grids.remember()
            statistics.remember()
            scores = [run.task.score(past) for past in history]
            before = schedule(prepared, optimizer, spec, scores, range((number - 1) * length, number * length))
            # The optimizer clips, in its units; bfloat16 is coarser than the int8 steps to be simulated.
            steps = Steps(optimizer, loss, gradient_clip=math.inf, bfloat16=False, before=before)
            with _live_again_on_failure(prepared):
                row["train_loss"] = train_epoch(prepared, number, spec, steps, run)
            row["learning_rate"] = optimizer.param_groups[0]["lr"]
            row["bn_live_steps"] = statistics.moved
            _require_finite(prepared, number)
        metrics = _validate_frozen(averaged.sync_(), run)
        return row | {f"val_{name}": value for name, value in metrics.items()}

    parts: dict[str, Stateful] = {"network": averaged.network, "trained": prepared, "optimizer": optimizer}
    history = run_epochs(
        range(spec.epochs + 1), one_epoch, parts | {"averaged": averaged, "modes": _Modes(prepared)}, run
    )
    for network in (averaged.network, prepared):
        _set_modes_(network, "freeze")  # at the ranges of the best epoch
    prepared.load_state_dict(averaged.network.state_dict())
    for network in (prepared, teacher):
        take_back_(network)
    prepared.eval()
    best = int(best_epoch(history, task=run.task)["epoch"])
    live = sum(int(row.get("bn_live_steps", 0)) for row in history[: best + 1])
    return Finetuned(history, asserted, best, changed(start, integer_weights(prepared)), live)


class _Modes:
    """The modes of all quantizers, as a part of what is kept after an epoch."""

    def __init__(self, prepared: nn.Module) -> None:
        self.prepared = prepared

    def state_dict(self) -> dict[str, str]:
        return {name: quantizer.mode for name, quantizer in quantizers(self.prepared).items()}

    def load_state_dict(self, modes: dict[str, str]) -> None:
        for name, quantizer in quantizers(self.prepared).items():
            quantizer.set_mode(current_mode(modes[name]))


def _set_modes_(prepared: nn.Module, mode: str) -> None:
    """Set the mode of all quantizers but those that are off."""
    for quantizer in quantizers(prepared).values():
        if quantizer.mode != "off":
            quantizer.set_mode(mode)


@torch.no_grad()
def _observe_(prepared: fx.GraphModule, spec: QatSpec, run: TrainingRun) -> None:
    """Set what will move, from the first batches of the data: activation ranges, then BatchNorm's statistics."""
    observed = [q for q in quantizers(prepared).values() if q.mode == "moving_average" and not q.weight]
    prepared.eval()
    if observed:
        modes = _Modes(prepared)
        before = modes.state_dict()
        _set_modes_(prepared, "calibrate")
        for quantizer in observed:
            quantizer.set_mode("calibrate", MovingAverageObserver())
        for images in _first_batches(spec, run):
            prepared(images)
        for quantizer in observed:
            assert quantizer.observer is not None
            quantizer.set_range(*quantizer.observer.limits())
        modes.load_state_dict(before)
    with _held(prepared):
        restart_statistics_(prepared, _first_batches(spec, run))


def _first_batches(spec: QatSpec, run: TrainingRun) -> Iterator[Tensor]:
    """What the first steps of training will see."""
    torch.manual_seed(epoch_seed(run.seed, 1))
    with closing(epoch_pictures(run, spec, epoch_batches(run, spec, 1)[: spec.observe_batches])) as pictures:
        for images, targets in pictures:
            yield augmented(run.task, images, targets)[0]


def _project_(prepared: nn.Module) -> None:
    for quantizer in quantizers(prepared).values():
        if quantizer.learned is not None:
            quantizer.learned.project_()


def _require_finite(prepared: nn.Module, number: int) -> None:
    """A step too large leaves infinite parameters that frozen quantizers clamp, so that the loss stays finite."""
    wrong = [name for name, value in prepared.named_parameters() if not torch.isfinite(value).all()]
    if wrong:
        raise FloatingPointError(f"epoch {number} left {wrong[0]} not finite; lower qat.travel")


def _distillation_loss(teacher: nn.Module, weight: float, task: Task) -> Loss:
    """The task's loss and, by ``weight``, that against the float network (Hinton et al. 2015, arXiv:1503.02531)."""

    def loss(inputs: Tensor, outputs: Nested, targets: Nested) -> Tensor:
        value = task.loss(outputs, targets)
        if weight == 0.0:
            return value
        with torch.no_grad():
            taught = teacher(inputs)
        return (1.0 - weight) * value + weight * task.distillation(outputs, taught)

    return loss


@contextmanager
def _live_again_on_failure(prepared: fx.GraphModule) -> Iterator[None]:
    """BatchNorm that an epoch froze learns again where the epoch fails, and may be begun anew."""
    live = live_convs(prepared)
    try:
        yield
    except Exception:
        for conv in live.values():
            conv.bn_frozen = False
        raise


@contextmanager
def _held(prepared: nn.Module) -> Iterator[None]:
    """All ranges held; the modes are put back."""
    modes = _Modes(prepared)
    before = modes.state_dict()
    freeze_ranges_(prepared, weights=True)
    yield
    modes.load_state_dict(before)


def _validate_frozen(prepared: nn.Module, run: TrainingRun) -> dict[str, float]:
    """Validation metrics of the fake-quantized network with all ranges held."""
    with _held(prepared):
        return validate(prepared, run.pack, run.device, run.task)
