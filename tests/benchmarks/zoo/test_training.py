"""The short training of the zoo's networks: it learns, whether a network gives a vector or a map."""

import pytest
import torch
from torch import Tensor, nn

from benchmarks.zoo.training import train


class Small(nn.Module):
    def __init__(self, pooled: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 30, 3, padding=1)
        self.pooled = pooled

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(torch.relu(self.first(x)))
        return x.mean((2, 3)) if self.pooled else x


@pytest.mark.parametrize("pooled", [False, True])
def test_it_learns_depth_from_pictures_that_show_it(pooled):
    depth = torch.rand(64, 1, 1, 1, generator=torch.Generator().manual_seed(0)).expand(-1, -1, 8, 8)
    network = Small(pooled)
    steps, error = train(network, depth.repeat(1, 3, 1, 1), depth, seconds=2.0)
    assert steps > 20
    assert error < 0.5
    assert not network.training
