"""A device without room: pictures leave it, batches go in parts, and the epoch begins again as if nothing had been."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from model.epochs import TrainingRun
from model.micro_batches import MicroBatches
from model.training import TrainSpec, train
from tests.model.tiny_training import CPU, same, tiny


class Cramped(nn.Module):
    """Has no room for more than ``most`` pictures in training, from its call of number ``since`` on."""

    def __init__(self, inner: nn.Module, most: int, since: int = 0) -> None:
        super().__init__()
        self.inner, self.most, self.since, self.calls = inner, most, since, 0

    def forward(self, x):
        self.calls += self.training
        if self.training and self.calls > self.since and len(x) > self.most:
            self.inner(x)  # what it had done by then, such as moving statistics
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.inner(x)


def plain() -> nn.Module:
    """No picture of it knows of the others of its batch."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.SiLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.SiLU(), nn.Conv2d(8, 1, 1))


SPEC = TrainSpec(epochs=2, batch_size=8, learning_rate=1e-3, init="random")


def trained(network, pack, spec=SPEC, **given):
    return train(network, spec, TrainingRun(pack, 0, CPU, **given))


@pytest.mark.parametrize(("most", "at_a_time"), [(4, 4), (3, 2), (2, 2)])
def test_batches_in_parts_give_the_result_of_whole_ones_up_to_rounding(pack, most, at_a_time):
    whole, cramped = plain(), Cramped(plain(), most)
    expected, history = trained(whole, pack), trained(cramped, pack)
    assert {row["images_at_a_time"] for row in history} == {at_a_time}
    assert not any("images_at_a_time" in row for row in expected)
    for row, other in zip(history, expected, strict=True):
        assert row["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)
        assert row["val_ssim"] == pytest.approx(other["val_ssim"], abs=1e-3)
    for mine, theirs in zip(cramped.parameters(), whole.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=2e-4), "a fifth of a step of the learning rate"


def test_an_epoch_that_had_no_room_begins_again_from_where_it_began(pack):
    results = []
    for since in (3, 4):  # in the first step of the second epoch, or in the one after it
        network = Cramped(tiny(), most=4, since=since)
        history = trained(network, pack)
        assert [row.get("images_at_a_time") for row in history] == [None, 4]
        results.append((copy.deepcopy(network.state_dict()), history))
    assert results[0][1] == results[1][1]
    assert same(results[0][0], results[1][0]), "BatchNorm's statistics and the optimizer's moments too"


def test_pictures_leave_the_device_before_batches_are_halved(pack):
    network, run = Cramped(tiny(), most=0), TrainingRun(pack, 0, CPU)
    run.feed.kept = "gpu"
    original = network.forward

    def once(x):
        network.most = 0 if run.feed.kept == "gpu" else 8
        return original(x)

    network.forward = once
    history = train(network, SPEC, run)
    assert run.feed.kept == "memory"
    assert run.micro_batches.most is None
    assert history == trained(tiny(), pack)


def test_no_room_for_two_pictures_is_an_error(pack):
    with pytest.raises(torch.OutOfMemoryError):
        trained(Cramped(tiny(), most=1), pack)


def test_parts_are_of_nearly_equal_size_and_never_one_picture():
    batches = MicroBatches()
    images = torch.arange(9.0)
    assert [len(part) for part, _, _ in batches.parts(images, images)] == [9]
    assert batches.halve()
    assert [len(part) for part, _, _ in batches.parts(images, images)] == [3, 3, 3]
    assert sum(share for _, _, share in batches.parts(images, images)) == pytest.approx(1)
    batches.largest = 4
    assert batches.halve()
    assert [len(part) for part, _, _ in batches.parts(images, images)] == [3, 2, 2, 2]
    assert [len(part) for part, _, _ in batches.parts(images[:1], images[:1])] == [1]
    batches.largest = 3
    assert not batches.halve()


def test_channels_last_trains_the_same_network_and_leaves_it_as_it_was(pack, monkeypatch):
    expected = trained(whole := tiny(), pack)
    seen = []

    def loss_of_layout(network, args):
        seen.append((args[0].is_contiguous(memory_format=torch.channels_last), network.layers[3].weight.stride(1)))

    for place in ("model.placement", "model.epochs"):
        monkeypatch.setattr(f"{place}.memory_format", lambda device: torch.channels_last)
    network = tiny()
    network.register_forward_pre_hook(lambda module, args: loss_of_layout(module, args) if module.training else None)
    history = trained(network, pack)
    assert set(seen) == {(True, 1)}
    assert all(value.is_contiguous() for value in network.state_dict().values())
    assert history[-1]["train_loss"] == pytest.approx(expected[-1]["train_loss"], rel=1e-3)
    assert functional.l1_loss(network.layers[3].weight, whole.layers[3].weight) < 1e-3
