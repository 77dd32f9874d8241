"""The benchmark of training runs on a CPU through the code that a GPU takes, and says each figure once."""

import json

import pytest
import torch

from benchmarks.loading import training
from benchmarks.loading.consumer import repeated
from model import epochs
from model.data.pack import Pack
from model.images import normalize
from tests.model.tiny_training import tiny, write


@pytest.fixture
def pack(tmp_path):
    return Pack(write(tmp_path / "pack.h5", {"train": 16, "val": 4, "test": 2}, size=32))


def test_rates_of_training_and_calibration_are_said_beside_those_of_a_constant_batch(pack, capsys):
    budget = training.Budget(batch=4, steps=3, calibration_images=8, rounds=1)
    training.measure(tiny().eval(), pack, torch.device("cpu"), budget)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kinds = ("float training", "qat", "calibration")
    assert [line["name"] for line in lines] == [f"data_{kind}{part}" for kind in kinds for part in ("", "_share")]
    assert all(line["value"] > 0 for line in lines)


def test_a_constant_batch_is_read_once_and_not_augmented(pack):
    order = [torch.tensor([5, 6, 7, 8])] * 3
    with training._run(pack, torch.device("cpu"), training._Clock(4), constant=True) as run:
        batches = list(run.feed.batches(order))
        assert epochs.augmented(run.task, *batches[0]) == batches[0]
    assert len(batches) == 3
    assert len({images.data_ptr() for images, _ in batches}) == 1
    assert torch.equal(batches[0][0], normalize(pack.images("train", [0, 1, 2, 3])))


def test_a_pack_is_repeated_picture_by_picture(pack, tmp_path):
    many = repeated(pack, tmp_path / "many.h5", 40)
    assert many.size("train") == 40
    assert torch.equal(many.images("train", [0, 17, 39]), pack.images("train", [0, 1, 7]))
    assert torch.equal(many.targets("train", [38]), pack.targets("train", [6]))
