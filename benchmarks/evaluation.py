"""How long the int8 network takes over the test set of NYUv2, and by which batches, beside the float network."""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.line import say
from grid.cores import own_cores
from grid.measure import BATCH, predict_on_cores
from model.checkpoint import load_checkpoint
from model.network import normalize
from model.pack import Pack, PackSpec, prepare_pack
from model.training import predict
from quant.calibrate import calibrate
from quant.engines.qnnpack import convert
from quant.graph import fuse_bn
from quant.recipe import CalibrateSpec

CHECKPOINT = Path(__file__).resolve().parents[1] / "checkpoints" / "efficientnet_b0-rooms.safetensors"
NYU_TEST = 654
MEASURED = 128
MEASURED_BATCH = 32  # enough to compare batch sizes
BATCHES = (1, 4, 16, 32)
CORES = 2
ROOMS = 8
SCALED = f"scaled to {NYU_TEST} images"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        pack = Pack(prepare_pack("rooms", Path(folder), PackSpec(rooms_train=ROOMS, rooms_val=1, rooms_test=1)))
        rooms = pack.images("train")
    network = load_checkpoint(CHECKPOINT)[0]
    spec = CalibrateSpec(activation_range="minmax")
    int8 = convert(calibrate(fuse_bn(network), "per_channel", spec, normalize(rooms)))
    threads = min(CORES, len(own_cores()))
    torch.set_num_threads(threads)
    images, few = rooms.repeat(MEASURED // ROOMS, 1, 1, 1), rooms.repeat(MEASURED_BATCH // ROOMS, 1, 1, 1)
    predict_on_cores(int8, rooms)
    predict_on_cores(network, rooms)
    int8_s = _seconds(partial(predict_on_cores, int8, images), MEASURED)
    float_s = _seconds(partial(predict_on_cores, network, images), MEASURED)
    how = f"{threads} threads side by side, batches of {BATCH}, {MEASURED} images {SCALED}"
    say("evaluation_int8", int8_s, "s", f"{how}; goal <= 60")
    say("evaluation_float", float_s, "s", how)
    say("evaluation_int8_x_float", int8_s / float_s, "x", "the float network in the same run")
    for batch in BATCHES:
        plain = partial(predict, int8, few, device=torch.device("cpu"), batch_size=batch)
        say(
            f"evaluation_int8_batch_{batch}",
            _seconds(plain, MEASURED_BATCH),
            "s",
            f"one batch of {batch} at a time with {threads} torch threads, {MEASURED_BATCH} images {SCALED}",
        )


def _seconds(run: Callable[[], object], images: int) -> float:
    """Seconds of a run over so many images, scaled to the test set of NYUv2."""
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) / images * NYU_TEST


if __name__ == "__main__":
    main()
