"""Predictions on several cores are those of one, in their order, and the process is left as it was."""

import threading
import time

import pytest
import torch
from torch import Tensor, nn

from grid.latency import quiet
from grid.measure import BATCH, predict_on_cores
from model.network import normalize
from model.training import predict
from quant.calibrate import calibrate
from quant.engines.qnnpack import convert
from quant.recipe import CalibrateSpec
from tests.grid import tiny

IMAGES = torch.randint(0, 256, (2 * BATCH + 1, 3, tiny.SIZE, tiny.SIZE), dtype=torch.uint8)


def test_the_int8_predictions_of_several_cores_are_bit_for_bit_those_of_one():
    network = tiny.network(IMAGES)
    int8 = convert(calibrate(network, "per_channel", CalibrateSpec(activation_range="minmax"), normalize(IMAGES)))
    with quiet(2):
        assert torch.equal(predict_on_cores(int8, IMAGES), predict(int8, IMAGES, device=torch.device("cpu")))


def test_as_many_batches_run_at_a_time_as_torch_has_threads_each_on_one():
    both = threading.Barrier(2)
    seen = []

    class Meeting(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            both.wait(10)  # breaks unless two are here at a time
            seen.append(torch.get_num_threads())
            return images[:, :1]

    with quiet(2):
        predict_on_cores(Meeting(), IMAGES[: 2 * BATCH])
        assert torch.get_num_threads() == 2
    assert seen == [1, 1]


def test_the_order_is_kept_and_progress_counts_up_whoever_is_first():
    steps, callers = [], set()

    class FirstIsLast(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            time.sleep(0.2 if torch.equal(images, normalize(IMAGES[:BATCH])) else 0.0)
            return images[:, :1]

    def progress(info: dict[str, float]) -> None:
        steps.append((info["step"], info["steps"]))
        callers.add(threading.get_ident())

    with quiet(2):
        found = predict_on_cores(FirstIsLast(), IMAGES, progress)
    assert torch.equal(found, normalize(IMAGES)[:, :1])
    assert steps == [(size, len(IMAGES)) for size in (BATCH, 2 * BATCH, 2 * BATCH + 1)]
    assert callers == {threading.get_ident()}, "Tune takes reports from the stage's own thread alone"


def test_an_error_in_a_batch_comes_out_and_the_threads_are_put_back():
    with quiet(2):
        with pytest.raises(RuntimeError, match="channels"):
            predict_on_cores(nn.Conv2d(4, 1, 1), IMAGES)
        assert torch.get_num_threads() == 2
