"""Losses that are read every few steps: their mean, which steps are told, and the step of one that is not finite."""

import pytest
import torch

from model import losses as module
from model.epochs import Steps, TrainingRun, train_epoch
from model.losses import Losses
from model.tasks.depth import depth_loss
from tests.model.tiny_training import CPU, SPEC, tiny


@pytest.fixture
def every_third(monkeypatch):
    monkeypatch.setattr(module, "_READ_EVERY", {})
    monkeypatch.setattr(module, "_ELSEWHERE", 3)


def test_each_loss_is_read_on_a_cpu():
    losses = Losses(4, CPU)
    assert [losses.add(torch.tensor(value)) for value in (1.0, 2.0, 3.0)] == [True] * 3
    assert (losses.mean, losses.read) == (2.0, 3)


@pytest.mark.usefixtures("every_third")
def test_elsewhere_some_are_read_together_and_the_last_ones_too():
    losses = Losses(5, CPU)
    assert [losses.add(torch.tensor(float(value))) for value in range(5)] == [False, False, True, False, True]
    assert (losses.mean, losses.read) == (2.0, 5)


@pytest.mark.usefixtures("every_third")
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_the_first_step_that_is_not_finite_is_named(wrong):
    losses = Losses(9, CPU)
    for value in (1.0, 1.0, 1.0, 1.0, wrong):
        losses.add(torch.tensor(value))
    with pytest.raises(FloatingPointError, match=f"loss became {wrong} at step 5 of 9"):
        losses.add(torch.tensor(2.0))


def test_an_epoch_is_the_same_however_often_its_losses_are_read(pack, monkeypatch):
    results = []
    for _ in range(2):
        network, seen = tiny().train(), []
        optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
        steps = Steps(optimizer, lambda _, prediction, target: depth_loss(prediction, target), 1.0, bfloat16=False)
        mean = train_epoch(network, 1, SPEC, steps, TrainingRun(pack, 0, CPU, progress=seen.append))
        results.append((mean, [info["step"] for info in seen], {info["step"]: info["loss"] for info in seen}))
        monkeypatch.setattr(module, "_READ_EVERY", {"cpu": 3})
    (mean, each, losses), (other, some, others) = results
    assert (each, some) == ([1, 2, 3, 4, 5], [3, 5])
    assert mean == other
    assert others.items() <= losses.items()
