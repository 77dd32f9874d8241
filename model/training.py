"""Training of the float network, and the epoch loop that quantization-aware training shares with it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from model.data.augment import augment
from model.data.pack import Pack
from model.errors import InputError, require_one_of, require_range
from model.files import replacing
from model.images import normalize
from model.metrics import depth_loss, depth_metrics

_PLATEAU_FACTOR = 0.3
INITS = ("imagenet", "lite0", "random", "checkpoint")
Progress = Callable[[dict[str, float]], None]
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(normalized images, prediction, target) -> scalar"""


@dataclass(frozen=True)
class TrainSpec:
    """Float training: AdamW with ReduceLROnPlateau and gradient clipping, as in the study.

    ``images_per_epoch`` 0 means all; ``init`` is where the weights start from (imagenet, lite0, random, or the given
    checkpoint, which is then fine-tuned). After the fraction ``freeze_bn_after`` of the epochs BatchNorm uses its
    running statistics and the learning rate falls by the plateau's factor: the network then learns in the form in
    which it ships, and unlearns activations that only batch statistics kept in bounds.
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

    def best_epoch(self, history: list[dict[str, float]]) -> dict[str, float]:
        """The row of the best validation SSIM; once BatchNorm is frozen, among the epochs since then alone."""
        return max(history[self.first_frozen :] or history, key=lambda row: row["val_ssim"])


def epoch_batches(size: int, images_per_epoch: int, batch_size: int, seed: int) -> list[Tensor]:
    """Shuffled index batches of one epoch; a last batch of one image is dropped (BatchNorm needs two)."""
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    order = order[: images_per_epoch or size]
    return [batch for batch in order.split(batch_size) if len(batch) > 1 or len(order) == 1]


def train_epoch(
    network: nn.Module,
    pack: Pack,
    optimizer: torch.optim.Optimizer,
    batches: list[Tensor],
    *,
    device: torch.device,
    loss: Loss,
    gradient_clip: float,
    mixed_precision: bool,
    seed: int,
    on_step: Callable[[int], None],
    progress: Progress,
) -> float:
    """One epoch over ``batches`` of train images; returns the mean loss.

    ``on_step(i)`` runs before step i (schedules), ``progress`` gets step, steps and loss after it.
    ``mixed_precision`` is bfloat16 autocast and only acts on a GPU. Raises FloatingPointError when the loss is
    not finite.
    """
    torch.manual_seed(seed)
    total = 0.0
    for step, batch in enumerate(batches):
        on_step(step)
        indices = batch.tolist()
        images = pack.images("train", indices).to(device, non_blocking=True)
        target = pack.depth("train", indices).to(device, non_blocking=True)
        images, target = augment(images, target)
        inputs = normalize(images)
        with torch.autocast("cuda", torch.bfloat16, enabled=mixed_precision and device.type == "cuda"):
            prediction = network(inputs)
        value = loss(inputs, prediction.float(), target)
        if not torch.isfinite(value):
            raise FloatingPointError(f"loss became {float(value)} at step {step + 1} of {len(batches)}")
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), gradient_clip)
        optimizer.step()
        total += float(value.detach())
        progress({"step": step + 1, "steps": len(batches), "loss": total / (step + 1)})
    return total / max(len(batches), 1)


@torch.inference_mode()
def predict(
    network: nn.Module,
    images: Tensor,
    *,
    device: torch.device,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> Tensor:
    """Depth fractions Nx1xhxw (float32, on the CPU) of uint8 images Nx3xHxW, in the mode the network is in."""
    outputs = []
    for start in range(0, len(images), batch_size):
        batch = normalize(images[start : start + batch_size].to(device))
        outputs.append(network(batch).float().cpu())
        if progress:
            progress({"step": min(start + batch_size, len(images)), "steps": len(images)})
    return torch.cat(outputs)


def validate(network: nn.Module, pack: Pack, device: torch.device) -> dict[str, float]:
    """Metrics on the validation split, network in eval mode; the mode is put back."""
    was_training = network.training
    network.eval()
    prediction = predict(network, pack.images("val"), device=device)
    network.train(was_training)
    return depth_metrics(prediction, pack.depth("val"))


def train(
    network: nn.Module,
    pack: Pack,
    spec: TrainSpec,
    *,
    seed: int,
    device: torch.device,
    scratch: Path | None,
    progress: Progress,
) -> list[dict[str, float]]:
    """Train ``network`` in place, leave it with the weights of its best epoch (validation SSIM); return the history.

    With a ``scratch`` folder every finished epoch is kept there, and a rerun with the same arguments goes on
    after the last one.
    """
    network.to(device)
    optimizer = torch.optim.AdamW(network.parameters(), spec.learning_rate, weight_decay=spec.weight_decay)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max", factor=_PLATEAU_FACTOR, patience=spec.plateau_patience
    )
    state = load_epoch(scratch)
    history: list[dict[str, float]] = state["history"] if state else []
    best: dict[str, Tensor] = state["best"] if state else {}
    if state:
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
    for epoch in range(len(history), spec.epochs):
        network.train()
        if epoch >= spec.first_frozen:
            _freeze_bn_(network)
        if epoch == spec.first_frozen:
            optimizer.param_groups[0]["lr"] *= _PLATEAU_FACTOR
        epoch_seed = seed * 100_003 + epoch
        loss = train_epoch(
            network,
            pack,
            optimizer,
            epoch_batches(pack.size("train"), spec.images_per_epoch, spec.batch_size, epoch_seed),
            device=device,
            loss=lambda _, prediction, target: depth_loss(prediction, target),
            gradient_clip=spec.gradient_clip,
            mixed_precision=True,
            seed=epoch_seed,
            on_step=lambda step: None,
            progress=partial(in_epoch, progress, epoch + 1, spec.epochs),
        )
        metrics = validate(network, pack, device)
        rate = optimizer.param_groups[0]["lr"]
        scheduler.step(metrics["ssim"])
        history.append(
            {"epoch": epoch + 1, "train_loss": loss, "learning_rate": rate}
            | {f"val_{name}": value for name, value in metrics.items()}
        )
        if spec.best_epoch(history) is history[-1]:
            best = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
        progress({"epochs": spec.epochs, **history[-1]})
        save_epoch(
            scratch,
            history=history,
            best=best,
            network=network.state_dict(),
            optimizer=optimizer.state_dict(),
            scheduler=scheduler.state_dict(),
        )
    network.load_state_dict(best)
    network.eval()
    return history


def _freeze_bn_(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def in_epoch(progress: Progress, epoch: int, epochs: int, info: dict[str, float]) -> None:
    """Pass progress on with the epoch added."""
    progress({"epoch": epoch, "epochs": epochs, **info})


def save_epoch(scratch: Path | None, **state: object) -> None:
    """Keep the state after an epoch in ``scratch``; nothing without a folder."""
    if scratch is None:
        return
    with replacing(scratch / "epoch.pt") as aside:
        torch.save(state, aside)


def load_epoch(scratch: Path | None) -> dict | None:
    """The state of the last finished epoch in ``scratch``, or None."""
    if scratch is None or not (scratch / "epoch.pt").exists():
        return None
    return torch.load(scratch / "epoch.pt", weights_only=True)
