"""What QAT and calibration cost beside float training and float inference, on this machine's CPU and on a GPU if any.

Steps run in turns on one batch of rendered pictures; printed are medians over rounds of each step beside the float
step of the same round. The stock torch.ao FX path, in its default QNNPACK configuration, stands beside them.
"""

import copy
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.ao.quantization import get_default_qat_qconfig_mapping, get_default_qconfig_mapping
from torch.ao.quantization.quantize_fx import prepare_fx, prepare_qat_fx

from benchmarks.line import say
from benchmarks.subject import float_network, rendered
from grid.scheduling.cores import own_cores, pinned
from model.images import normalize
from model.tasks.depth import depth_loss
from quant.calibrate import calibrate
from quant.prepare import quant_convs, quantizers
from quant.qat.finetune import prepare_for_qat
from quant.qat.grid_adam import GridAdam, grid_units
from quant.recipe import CalibrateSpec
from quant.tracing.trace import fuse_bn

ROUNDS = 7
CALIBRATION_IMAGES, CALIBRATION_ROUNDS = 64, 3


def main() -> None:
    """Measure on the CPU, then on a GPU."""
    with tempfile.TemporaryDirectory() as folder:
        pack = rendered(Path(folder), 16, 1)
        images, depth = normalize(pack.images("train")), pack.targets("train")
    with pinned(own_cores()[:1]):
        _measure(images[:8], depth[:8], "cpu", goal=1.6)
        _calibration(images, "cpu")
    if torch.cuda.is_available():
        _measure(images.repeat(4, 1, 1, 1), depth.repeat(4, 1, 1, 1), "cuda", goal=1.4)
        _calibration(images, "cuda")


def _measure(images: Tensor, depth: Tensor, device: str, goal: float) -> None:
    network, images, depth = float_network().to(device), images.to(device), depth.to(device)
    trained = copy.deepcopy(network).train()
    follow = prepare_for_qat(network, "per_channel", CalibrateSpec()).train()
    frozen = calibrate(network, "per_channel", CalibrateSpec(), images).train()
    live = copy.deepcopy(frozen)
    for conv in (*quant_convs(follow).values(), *quant_convs(frozen).values()):
        conv.freeze_bn_()  # as in the second half of a training by default
    learned = copy.deepcopy(frozen)
    for quantizer in quantizers(learned).values():
        quantizer.set_mode("learn")
    example = (images[:1],)
    stock = prepare_qat_fx(copy.deepcopy(network).train(), get_default_qat_qconfig_mapping("qnnpack"), example)
    steps = {
        "float": _step(trained, torch.optim.AdamW(trained.parameters(), 1e-6), images, depth),
        "qat, calibrated ranges": _step(frozen, GridAdam(grid_units(frozen), 1e-6, 0.0), images, depth),
        "qat, BatchNorm live": _step(live, GridAdam(grid_units(live), 1e-6, 0.0), images, depth),
        "qat, ranges that follow": _step(follow, GridAdam(grid_units(follow), 1e-6, 0.0), images, depth),
        "qat, learned scales": _step(learned, GridAdam(grid_units(learned), 1e-6, 0.0), images, depth),
        "qat with distillation": _step(
            frozen, GridAdam(grid_units(frozen), 1e-6, 0.0), images, depth, teacher=fuse_bn(network)
        ),
        "stock torch.ao FX qat": _step(stock, torch.optim.AdamW(stock.parameters(), 1e-6), images, depth),
    }
    seconds = _in_turns(steps, ROUNDS)
    say(f"float training {device}", len(images) / median(seconds["float"]), "images/s", f"batch {len(images)}")
    for name, values in seconds.items():
        if name != "float":
            ratio = median(one / plain for one, plain in zip(values, seconds["float"], strict=True))
            say(f"{name} {device}", ratio, "ratio", f"float step, BatchNorm live; goal {goal}")


def _step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    depth: Tensor,
    teacher: nn.Module | None = None,
) -> Callable[[], None]:
    def step() -> None:
        prediction = network(images)
        loss = depth_loss(prediction, depth)
        if teacher is not None:
            with torch.no_grad():
                taught = teacher(images)
            loss = 0.5 * loss + 0.5 * depth_loss(prediction, taught)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def _calibration(images: Tensor, device: str) -> None:
    network = float_network().to(device)
    images = images.repeat(CALIBRATION_IMAGES // len(images), 1, 1, 1)
    stock = prepare_fx(copy.deepcopy(network), get_default_qconfig_mapping("qnnpack"), (images[:1].to(device),))
    with torch.no_grad():
        jobs = {
            "float inference": lambda: _run(network, images),
            **{
                f"calibration {kind}": lambda kind=kind: calibrate(
                    network, "per_channel", CalibrateSpec(activation_range=kind), images
                )
                for kind in ("mse", "minmax")
            },
            "stock torch.ao FX calibration": lambda: _run(stock, images),
        }
        seconds = _in_turns(jobs, CALIBRATION_ROUNDS)
    for name, values in seconds.items():
        if name != "float inference":
            ratio = median(one / plain for one, plain in zip(values, seconds["float inference"], strict=True))
            say(f"{name} {device}", ratio, "ratio", f"float inference, {len(images)} pictures; goal 1.3")


def _run(network: nn.Module, images: Tensor) -> None:
    device = next(network.parameters()).device
    for batch in images.split(CalibrateSpec().batch_size):
        network(batch.to(device))


def _in_turns(jobs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each job in each round, after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(rounds + 1):
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
