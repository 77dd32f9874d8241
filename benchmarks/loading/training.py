"""Images a second of float training, QAT and calibration, beside the same steps on one constant batch; peak memory.

The constant batch lies on the device, normalized, and is not augmented: what training is slower than that is the price
of its data. Both run through ``train``, ``finetune`` and ``calibrate`` as a grid does.
"""

import copy
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.line import say
from grid.stages.calibration_images import CalibrationImages
from model.data.batches import Feed
from model.data.pack import Pack
from model.epochs import TrainingRun
from model.images import normalize
from model.training import TrainSpec, train
from quant.calibrate import calibrate
from quant.qat.finetune import finetune
from quant.recipe import CalibrateSpec, QatSpec

PICTURES = 8192
GOALS = {"float training": 0.95, "qat": 0.9, "calibration": 0.9}


@dataclass(frozen=True)
class Budget:
    """How much is measured: batch size, steps a training, calibration images, and how often, in turns."""

    batch: int = 64
    steps: int = 96
    calibration_images: int = 512
    rounds: int = 3


@dataclass
class _Clock:
    """Progress of a training: its pictures a second between the first steps that were told and the last ones."""

    batch: int
    told: list[tuple[float, float]] = field(default_factory=list)

    def __call__(self, info: dict[str, float]) -> None:
        if "step" in info:
            self.told.append((info["step"], time.perf_counter()))

    @property
    def rate(self) -> float:
        (first, began), (last, ended) = self.told[0], self.told[-1]
        return self.batch * (last - first) / (ended - began)


def measure(network: nn.Module, pack: Pack, device: torch.device, budget: Budget) -> None:
    """Print the rates of a float network that takes the pictures of ``pack``, on a device."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    jobs: dict[str, Callable[[bool], float]] = {
        "float training": lambda constant: _float_rate(network, pack, device, budget, constant),
        "qat": lambda constant: _qat_rate(network, pack, device, budget, constant),
        "calibration": lambda constant: _calibration_rate(network, pack, device, budget, constant),
    }
    for what, job in jobs.items():
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        job(False)  # kernels are chosen, files are read
        pairs = [(job(False), job(True)) for _ in range(budget.rounds)]
        fed, constant = (sorted(rates)[len(rates) // 2] for rates in zip(*pairs, strict=True))
        say(f"data_{what}", fed, "images/s", f"{name}, batches of {budget.batch}, {pack.input_size} pixels")
        say(f"data_{what}_share", fed / constant, "x", f"one constant batch, {constant:.4g}/s; goal >= {GOALS[what]}")
        if device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(device) / 2**30
            say(f"data_{what}_memory", peak, "GiB", f"the most that was allocated; pictures on {name} included")


class _ConstantFeed(Feed):
    """The first pictures of a pack on the device, normalized, again and again."""

    def batches(self, order: Sequence[Tensor], passes: int = 1) -> Generator[tuple[Tensor, Tensor]]:
        images, depth = next(super().batches([torch.arange(len(order[0]))]))
        images = normalize(images)
        for indices in order:
            yield images[: len(indices)], depth[: len(indices)]


@contextmanager
def _run(pack: Pack, device: torch.device, clock: _Clock, constant: bool) -> Iterator[TrainingRun]:
    run = TrainingRun(pack, 0, device, progress=clock)
    with ExitStack() as stack:
        if constant:
            run.__dict__["feed"] = _ConstantFeed(pack, "train", device, "disk")
            for module in ("model.epochs", "quant.qat.finetune"):
                stack.enter_context(patch(f"{module}.augmented", lambda task, images, targets: (images, targets)))
        yield run


def _float_rate(network: nn.Module, pack: Pack, device: torch.device, budget: Budget, constant: bool) -> float:
    spec = TrainSpec(1, budget.batch, budget.batch * budget.steps, learning_rate=1e-6, init="random")
    clock = _Clock(budget.batch)
    with _run(pack, device, clock, constant) as run:
        train(copy.deepcopy(network), spec, run)
    return clock.rate


def _qat_rate(network: nn.Module, pack: Pack, device: torch.device, budget: Budget, constant: bool) -> float:
    spec = QatSpec(epochs=1, batch_size=budget.batch, images_per_epoch=budget.batch * budget.steps, observe_batches=1)
    source, clock = copy.deepcopy(network).to(device).eval(), _Clock(budget.batch)
    prepared = calibrate(source, "per_channel", CalibrateSpec(), CalibrationImages(pack, 8, 0))
    with _run(pack, device, clock, constant) as run:
        finetune(prepared, source, spec, run)
    return clock.rate


def _calibration_rate(network: nn.Module, pack: Pack, device: torch.device, budget: Budget, constant: bool) -> float:
    source, spec = copy.deepcopy(network).to(device).eval(), CalibrateSpec(activation_range="minmax")
    images = CalibrationImages(pack, budget.calibration_images, 0)
    if constant:
        images = _Constant(images[: spec.batch_size].to(device), len(images))
    started = time.perf_counter()
    calibrate(source, "per_channel", spec, images)
    return len(images) / (time.perf_counter() - started)


@dataclass(frozen=True)
class _Constant:
    """The same images for every slice."""

    images: Tensor
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, where: slice) -> Tensor:
        return self.images[: where.stop - where.start]
