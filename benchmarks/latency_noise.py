"""How steady the latency ratio is: its interval, its spread over repeats, and what a training neighbour does to it."""

import multiprocessing
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import median

import torch
from torch import nn

from benchmarks.line import say
from benchmarks.subject import float_network, int8_network, pictures
from grid.scheduling.cores import own_cores, pin_process, pinned
from grid.space.settings import LatencySpec
from grid.stages.latency import Latency, measure_pair
from quant.graph import fuse_bn

LONG = LatencySpec(seconds=20.0)
SPEC = LatencySpec()
REPEATS = 10
BUSY_REPEATS = 5
ROOMS = 4


def main() -> None:
    cores = own_cores()
    with tempfile.TemporaryDirectory() as folder:
        images, _ = pictures(Path(folder), ROOMS, 1)
    reference = float_network()
    candidates: dict[str, nn.Module] = {"fused": fuse_bn(reference), "int8": int8_network(reference, images)}
    with pinned(cores[:1]):
        for name, network in candidates.items():
            found = measure_pair(network, reference, images[:1], LONG)
            say(
                f"latency_half_width_{name}",
                50 * (found.ratio_high - found.ratio_low) / found.ratio,
                "%",
                f"half of the ratio's 95 % interval after at most {LONG.seconds:g} s ({found.pairs} pairs); goal <= 2",
            )
        quiet = {name: _ratios(network, reference, images[:1], REPEATS) for name, network in candidates.items()}
        for name, ratios in quiet.items():
            say(
                f"latency_spread_{name}",
                100 * (max(ratios) - min(ratios)) / median(ratios),
                "%",
                f"(max - min) / median of {REPEATS} ratios, median {median(ratios):.3f}; goal <= 3",
            )
        if len(cores) < 2:
            return
        with _training(cores[1]):
            busy = {name: _ratios(network, reference, images[:1], BUSY_REPEATS) for name, network in candidates.items()}
    for name, ratios in busy.items():
        say(
            f"latency_shift_{name}",
            100 * abs(median(ratios) / median(quiet[name]) - 1),
            "%",
            f"median of {BUSY_REPEATS} ratios beside training on another core, {median(ratios):.3f}, "
            f"against {median(quiet[name]):.3f} without; goal <= 3",
        )


def _ratios(candidate: nn.Module, reference: nn.Module, example: torch.Tensor, repeats: int) -> list[float]:
    found: list[Latency] = [measure_pair(candidate, reference, example, SPEC) for _ in range(repeats)]
    return [one.ratio for one in found]


@contextmanager
def _training(core: int) -> Iterator[None]:
    """A process that trains the network, with one thread on ``core``, while the body runs."""
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    process = context.Process(target=_train, args=(core, started), daemon=True)
    process.start()
    try:
        if not started.wait(60):
            raise RuntimeError("the training process has not made a step within a minute")
        yield
        if not process.is_alive():
            raise RuntimeError("the training process ended while the latency was measured")
    finally:
        process.kill()
        process.join()


def _train(core: int, started: Event) -> None:
    """Float training steps for ever."""
    pin_process([core])
    network = float_network().train()
    optimizer = torch.optim.AdamW(network.parameters())
    images, target = torch.randn(16, 3, 224, 224), torch.rand(16, 1, 56, 56)
    while True:
        optimizer.zero_grad()
        nn.functional.l1_loss(network(images), target).backward()
        optimizer.step()
        started.set()


if __name__ == "__main__":
    main()
