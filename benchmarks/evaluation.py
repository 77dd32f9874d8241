"""How long the int8 network takes over the test set of NYUv2, by size of batch, beside the float network."""

import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from torch import nn

from benchmarks.line import say
from benchmarks.subject import float_network, int8_network, rendered
from grid.scheduling.cores import own_cores
from grid.stages.latency import quiet
from model.images import normalize
from model.training import predict

NYU_TEST = 654
ROOMS = 8
IMAGES = {1: 32, 4: 32, 8: 128, 32: 32}
"""How many are measured at each size of batch; most at the one that ``predict`` takes by default."""
CORES = 2


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        rooms = rendered(Path(folder), ROOMS, 1).images("train")
    network = float_network()
    int8 = int8_network(network, normalize(rooms))
    threads = min(CORES, len(own_cores()))
    with quiet(threads):
        seconds = {batch: _seconds(int8, rooms, batch) for batch in IMAGES}
        float_s = _seconds(network, rooms, 8)
    how = f"{threads} torch threads, scaled to {NYU_TEST} images"
    say("evaluation_int8", seconds[8], "s", f"batches of 8, {how}; goal <= 60")
    say("evaluation_float", float_s, "s", f"batches of 8, {how}")
    say("evaluation_int8_x_float", seconds[8] / float_s, "x", "the float network in the same run")
    for batch in (1, 4, 32):
        say(f"evaluation_int8_batch_{batch}", seconds[batch], "s", f"batches of {batch}, {how}")


def _seconds(network: nn.Module, rooms: torch.Tensor, batch: int) -> float:
    """Seconds for the test set of NYUv2, from those of fewer images."""
    run = partial(predict, network, device=torch.device("cpu"), batch_size=batch)
    images = rooms.repeat(IMAGES[batch] // len(rooms), 1, 1, 1)
    run(images[:batch])
    start = time.perf_counter()
    run(images)
    return (time.perf_counter() - start) / len(images) * NYU_TEST


if __name__ == "__main__":
    main()
