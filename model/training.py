"""Training of the float network, and prediction."""

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from model.data.batches import Feed
from model.data.pack import Pack
from model.epochs import Row, Stateful, Steps, TrainingRun, best_epoch, run_epochs, train_epoch
from model.errors import InputError, require_one_of, require_range
from model.images import to_network
from model.placement import memory_format, place_, take_back_
from model.progress import Progress
from model.step_memory import make_room_
from model.tasks.depth import DEPTH
from model.tasks.nested import Nested, each, joined
from model.tasks.task import Task, metric_means

_PLATEAU_FACTOR = 0.3
_VALIDATED_AT_A_TIME = {"cpu": 8}
_ELSEWHERE = 64
INITS = ("imagenet", "lite0", "random", "checkpoint")


@dataclass(frozen=True)
class TrainSpec:
    """Float training: AdamW with ReduceLROnPlateau and gradient clipping, as in the study.

    ``images_per_epoch`` 0 means all; ``init`` is where the weights start from (imagenet, lite0, random, or the given
    checkpoint, which is then fine-tuned). After the fraction ``freeze_bn_after`` of the epochs BatchNorm uses its
    running statistics and the learning rate falls by the plateau's factor: the network then learns in the form in
    which it ships, and unlearns activations that only batch statistics kept in bounds. ``compile``: the steps run
    through ``torch.compile``, which takes a minute or so to begin with.
    """

    epochs: int = 25
    batch_size: int = 16
    images_per_epoch: int = 0
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    plateau_patience: int = 2
    freeze_bn_after: float = 0.5
    init: str = "imagenet"
    compile: bool = False

    def __post_init__(self) -> None:
        require_one_of("train.init", self.init, INITS)
        for name in ("epochs", "batch_size", "plateau_patience"):
            require_range(f"train.{name}", getattr(self, name), 1)
        for name in ("images_per_epoch", "learning_rate", "weight_decay", "gradient_clip"):
            require_range(f"train.{name}", getattr(self, name), 0)
        if not 0.0 < self.freeze_bn_after <= 1.0:
            value = repr(self.freeze_bn_after)
            raise InputError("train.freeze_bn_after", "is out of range", "above 0, at most 1", value=value)

    @property
    def first_frozen(self) -> int:
        """The epoch, counted from 0, from which on BatchNorm is frozen."""
        return math.ceil(self.freeze_bn_after * self.epochs)

    def best_epoch(self, history: Sequence[Row], task: Task = DEPTH) -> Row:
        """The row that is best by ``task`` on validation images; once BatchNorm is frozen, of the epochs since then."""
        return best_epoch(history, self.first_frozen, task)


@torch.inference_mode()
def predict(
    network: nn.Module,
    images: Tensor,
    *,
    device: torch.device,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> Nested:
    """What the network gives for inputs as a pack holds them, on the CPU, in the mode the network is in."""
    outputs = []
    for start in range(0, len(images), batch_size):
        batch = to_network(images[start : start + batch_size].to(device))
        outputs.append(each(lambda output: output.float().cpu(), network(batch)))
        if progress:
            progress({"step": min(start + batch_size, len(images)), "steps": len(images)})
    return joined(outputs)


def validate(network: nn.Module, pack: Pack, device: torch.device, task: Task = DEPTH) -> dict[str, float]:
    """Metrics on the validation split, read ahead, network in eval mode; the mode is put back."""
    was_training = network.training
    network.eval()
    order = torch.arange(pack.size("val")).split(_VALIDATED_AT_A_TIME.get(device.type, _ELSEWHERE))
    predicted, known = [], []
    with torch.inference_mode(), closing(Feed(pack, "val", device, "disk").batches(order)) as batches:
        for images, targets in batches:
            inputs = to_network(images).contiguous(memory_format=memory_format(device))
            predicted.append(each(Tensor.float, network(inputs)))
            known.append(targets)
    network.train(was_training)
    return metric_means(task, *(each(Tensor.cpu, joined(parts)) for parts in (predicted, known)))


def train(network: nn.Module, spec: TrainSpec, run: TrainingRun) -> list[Row]:
    """Train ``network`` in place and leave it with the weights of its best epoch, in eval mode.

    The task's monitor on the validation images tells which is best.

    Returns the history, an entry an epoch. Raises FloatingPointError when the loss is not finite.
    """
    make_room_(network, run, spec.batch_size)
    place_(network, run.device)
    stepped: Any = torch.compile(network) if spec.compile else network
    fused = True if run.device.type == "cuda" else None
    optimizer = torch.optim.AdamW(network.parameters(), spec.learning_rate, weight_decay=spec.weight_decay, fused=fused)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max", factor=_PLATEAU_FACTOR, patience=spec.plateau_patience
    )
    task = run.task
    steps = Steps(optimizer, lambda _, outputs, targets: task.loss(outputs, targets), spec.gradient_clip, bfloat16=True)

    def one_epoch(number: int, history: Sequence[Row]) -> Row:
        network.train()
        if number > spec.first_frozen:
            _freeze_bn_(network)
        if number == spec.first_frozen + 1:
            optimizer.param_groups[0]["lr"] *= _PLATEAU_FACTOR
        loss = train_epoch(stepped, number, spec, steps, run)
        metrics = validate(network, run.pack, run.device, task)
        row = {"epoch": number, "train_loss": loss, "learning_rate": optimizer.param_groups[0]["lr"]}
        scheduler.step(task.score(metrics, prefix=""))
        return row | {f"val_{name}": value for name, value in metrics.items()}

    parts: dict[str, Stateful] = {"network": network, "optimizer": optimizer, "scheduler": scheduler}
    history = run_epochs(range(1, spec.epochs + 1), one_epoch, parts, run, best_since=spec.first_frozen)
    take_back_(network)
    network.eval()
    return history


def _freeze_bn_(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
