"""Packed rooms and a network to train on them."""

import pytest
import torch

from model.data.pack import Pack
from model.images import normalize
from quant.tracing.trace import fuse_bn
from tests.quant.networks import (
    AllKinds,
    settled,
    write_pack,
)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return Pack(write_pack(tmp_path_factory.mktemp("data") / "pack.h5", {"train": 16, "val": 8, "test": 4}))


@pytest.fixture(scope="module")
def network(pack):
    """A float network that knows the task a little, so that noise and progress can be told apart."""
    torch.manual_seed(0)
    network = settled(AllKinds(), normalize(pack.images("train"))).train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    images, depth = normalize(pack.images("train")), pack.targets("train")
    for _ in range(15):
        optimizer.zero_grad()
        torch.nn.functional.l1_loss(network(images), depth).backward()
        optimizer.step()
    return network.eval()


@pytest.fixture(params=[False, True], ids=["live_bn", "fused"])
def source(request, network):
    return fuse_bn(network) if request.param else network
