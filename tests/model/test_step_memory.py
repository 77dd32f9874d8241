"""What a step wants is told from one picture, and batches go in parts where it is not there."""

import pytest
import torch
from torch import nn

from model.epochs import TrainingRun
from model.step_memory import fit_, make_room_, saved_bytes
from tests.model.tiny_training import CPU, same, tiny


def test_what_the_backward_pass_keeps_is_counted_once_and_without_parameters():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 1, 1))
    image, activation = 3 * 32 * 32, 4 * 32 * 32
    assert saved_bytes(network, (3, 32, 32)) == 4 * (image + activation), (
        "the convolution after ReLU keeps the same values"
    )


def test_it_grows_with_the_area_and_nothing_of_the_network_moves():
    network = tiny().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert saved_bytes(network, (3, 128, 128)) == pytest.approx(4 * saved_bytes(network, (3, 64, 64)), rel=0.01)
    assert network.training
    assert same(before, network)


@pytest.mark.parametrize(("free", "most"), [(2000, None), (1599, 7), (900, 4), (10, 2)])
def test_batches_go_in_parts_from_the_start_where_there_is_no_room_for_them(pack, free, most):
    run = TrainingRun(pack, 0, CPU)
    fit_(run, batch_size=8, picture=80, free=free)
    assert run.micro_batches.most == most


def test_a_cpu_is_not_asked(pack):
    run = TrainingRun(pack, 0, torch.device("cpu"))
    make_room_(tiny(), run, 10**9)
    assert run.micro_batches.most is None
