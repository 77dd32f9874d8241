"""The epoch loop that float training and quantization-aware training share: what a step sees, and what is kept."""

import io
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from model.data.batches import Batch, Feed
from model.data.pack import Pack
from model.files import replacing
from model.images import normalize, to_network
from model.losses import Losses
from model.micro_batches import MicroBatches
from model.placement import memory_format
from model.progress import Progress, ignore_progress
from model.tasks.depth import DEPTH
from model.tasks.nested import Nested, each
from model.tasks.task import Task

Loss = Callable[[Tensor, Nested, Nested], Tensor]
"""(inputs of the network, its outputs, targets) -> scalar"""
Row = dict[str, float]
"""The figures of one epoch."""


@dataclass(frozen=True)
class TrainingRun:
    """What a training has beside its network and its spec.

    ``pack``: train images are augmented; the validation images choose the best epoch. ``scratch``: folder in which
    every finished epoch is kept, so that a rerun with the same arguments resumes behind it (None: nothing is kept).
    ``cache``: where the train images are kept meanwhile, ``auto``, ``gpu``, ``memory`` or ``disk``.
    ``micro_batches``: how much of a batch goes through the network at a time. ``task``: what is learned.
    """

    pack: Pack
    seed: int
    device: torch.device
    scratch: Path | None = None
    progress: Progress = ignore_progress
    cache: str = "auto"
    micro_batches: MicroBatches = field(default_factory=MicroBatches)
    task: Task = DEPTH

    @cached_property
    def feed(self) -> Feed:
        """The train images on the device, the same ones in all epochs."""
        return Feed(self.pack, "train", self.device, self.cache)


@dataclass(frozen=True)
class Steps:
    """How the steps of an epoch are made.

    ``before(i)`` runs before step i (schedules). ``gradient_clip`` is the largest norm. ``bfloat16`` is autocast, and
    only acts on a GPU.
    """

    optimizer: torch.optim.Optimizer
    loss: Loss
    gradient_clip: float
    bfloat16: bool
    before: Callable[[int], None] = lambda step: None


class EpochSpec(Protocol):
    """The settings of an epoch; ``images_per_epoch`` 0 means all."""

    @property
    def epochs(self) -> int:
        """How many epochs there are."""

    @property
    def images_per_epoch(self) -> int:
        """Images in each of them."""

    @property
    def batch_size(self) -> int:
        """Images a step."""


class Stateful(Protocol):
    """What can be kept after an epoch and put back: a network, an optimizer, a schedule."""

    def state_dict(self) -> Mapping[str, Any]:
        """What there is to keep."""

    def load_state_dict(self, state_dict: Any) -> Any:
        """Go back to what was kept."""


def epoch_seed(seed: int, number: int) -> int:
    """The seed of everything that is drawn in the epoch of this number, counted from 1."""
    return seed * 100_003 + number - 1


def epoch_batches(run: TrainingRun, spec: EpochSpec, number: int) -> list[Tensor]:
    """Index batches of the train images for the epoch of this number."""
    seed = epoch_seed(run.seed, number)
    return shuffled_batches(run.pack.size("train"), spec.images_per_epoch, spec.batch_size, seed)


def epoch_pictures(run: TrainingRun, spec: EpochSpec, order: Sequence[Tensor]) -> Generator[Batch]:
    """The train images of these index batches, read ahead; close it where it is left early."""
    return run.feed.batches(order, passes=spec.epochs)


def shuffled_batches(size: int, images_per_epoch: int, batch_size: int, seed: int) -> list[Tensor]:
    """Shuffled index batches of one epoch; a last batch of one image is dropped (BatchNorm needs two)."""
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    order = order[: images_per_epoch or size]
    return [batch for batch in order.split(batch_size) if len(batch) > 1 or len(order) == 1]


def train_epoch(network: nn.Module, number: int, spec: EpochSpec, steps: Steps, run: TrainingRun) -> float:
    """Train ``network`` in place for the epoch of this number, counted from 1; returns the mean loss.

    Progress gets epoch, epochs, step, steps and the mean loss whenever the loss was read (``Losses``): after each step
    on a CPU. Raises FloatingPointError when the loss is not finite.
    """
    batches = epoch_batches(run, spec, number)
    torch.manual_seed(epoch_seed(run.seed, number))
    losses = Losses(len(batches), run.device)
    with closing(epoch_pictures(run, spec, batches)) as pictures:
        for step, (images, target) in enumerate(pictures):
            steps.before(step)
            inputs, target = augmented(run.task, images, target)
            read = losses.add(_gradients_(network, inputs, target, steps, run))
            nn.utils.clip_grad_norm_(network.parameters(), steps.gradient_clip)
            steps.optimizer.step()
            if read:
                figures = {"step": losses.read, "steps": losses.steps, "loss": losses.mean}
                run.progress({"epoch": number, "epochs": spec.epochs, **figures})
    return losses.mean


def augmented(task: Task, images: Tensor, target: Nested) -> Batch:
    """A training batch as the network takes it, from one as the pack holds it; draws from torch's generator."""
    inputs, target = task.augment(images, target)
    return (normalize(inputs) if images.dtype == torch.uint8 else to_network(inputs)), target


def _gradients_(network: nn.Module, inputs: Tensor, target: Nested, steps: Steps, run: TrainingRun) -> Tensor:
    """Set the gradients to those of a batch, in parts where it has to be; its loss."""
    steps.optimizer.zero_grad(set_to_none=True)
    inputs, values = inputs.contiguous(memory_format=memory_format(run.device)), []
    for part, truth, share in run.micro_batches.parts(inputs, target):
        with torch.autocast("cuda", torch.bfloat16, enabled=steps.bfloat16 and run.device.type == "cuda"):
            prediction = network(part)
        value = steps.loss(part, each(Tensor.float, prediction), truth) * share
        value.backward()
        values.append(value.detach())
    return torch.stack(values).sum()


def best_epoch(history: Sequence[Row], since: int = 0, task: Task = DEPTH) -> Row:
    """The first row that is best in the task's monitor on validation images, from index ``since`` on if there are."""
    return max(history[since:] or history, key=task.score)


def run_epochs(
    numbers: range,
    one_epoch: Callable[[int, Sequence[Row]], Row],
    parts: Mapping[str, Stateful],
    run: TrainingRun,
    best_since: int = 0,
) -> list[Row]:
    """Run the epochs of these numbers, leave the network with the state of the best one, and return the history.

    Args:
        numbers: of the epochs; the last one is how many are shown as the whole.
        one_epoch: trains and validates: from the number and the rows before it to its row.
        parts: the network (``network``), and what else is kept after each epoch and put back when a killed run resumes.
        best_since: index of the first row that may be the best one, once there is such a row.
    """
    state = load_epoch(run.scratch)
    history: list[Row] = state["history"] if state else []
    best: dict[str, Tensor] = state["best"] if state else {}
    if state:
        for name, part in parts.items():
            part.load_state_dict(state[name])
    for number in numbers[len(history) :]:
        history.append(_with_room(partial(one_epoch, number, history), parts, run))
        if best_epoch(history, best_since, run.task) is history[-1]:
            weights = parts["network"].state_dict()
            best = {name: value.detach().cpu().clone() for name, value in weights.items()}
        run.progress({"epochs": numbers[-1], **history[-1]})
        save_epoch(run.scratch, history=history, best=best, **{name: p.state_dict() for name, p in parts.items()})
    parts["network"].load_state_dict(best)
    return history


def _with_room(one_epoch: Callable[[], Row], parts: Mapping[str, Stateful], run: TrainingRun) -> Row:
    """The row of an epoch, which begins again with less on the device each time that has no room for it.

    First the pictures leave it, then batches are halved (``MicroBatches``). Raises torch.OutOfMemoryError where there
    is nothing left to halve.
    """
    before = io.BytesIO()
    torch.save({name: part.state_dict() for name, part in parts.items()}, before)
    while True:
        try:
            row = one_epoch()
        except torch.OutOfMemoryError:
            if not (run.feed.leave_gpu() or run.micro_batches.halve()):
                raise
        else:
            most = run.micro_batches.most
            return row if most is None else row | {"images_at_a_time": most}
        # Here, because the exception kept everything that the epoch had on the device.
        torch.cuda.empty_cache()
        before.seek(0)
        states = torch.load(before, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(states[name])


def save_epoch(scratch: Path | None, **state: object) -> None:
    """Keep the state after an epoch in ``scratch``; nothing without a folder."""
    if scratch is None:
        return
    with replacing(scratch / "epoch.pt") as aside:
        torch.save(state, aside)


def load_epoch(scratch: Path | None) -> dict[str, Any] | None:
    """The state of the last finished epoch in ``scratch``, or None."""
    if scratch is None or not (scratch / "epoch.pt").exists():
        return None
    state: dict[str, Any] = torch.load(scratch / "epoch.pt", weights_only=True)
    return state
