"""What tells two int8 networks apart."""

import pytest
import torch
from torch import Tensor, nn

from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.recipe import CalibrateSpec


class Scaled(nn.Module):
    """A convolution and a factor for each channel, of a module inside."""

    def __init__(self, factor: Tensor) -> None:
        super().__init__()
        self.conv, self.inner = nn.Conv2d(3, 4, 3), nn.Module()
        self.inner.gamma = nn.Parameter(factor)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.inner.gamma


@pytest.mark.parametrize("shape", [(4, 1, 1), ()], ids=["a factor for each channel", "one factor"])
def test_a_constant_of_a_module_inside_is_part_of_the_network(images, shape):
    def hashed(factor: float) -> str:
        torch.manual_seed(0)
        network = Scaled(torch.full(shape, factor)).eval()
        prepared = calibrate(network, "per_channel", CalibrateSpec(activation_range="minmax"), images)
        return qnnpack.graph_hash(qnnpack.convert(prepared))

    assert hashed(0.5) == hashed(0.5)
    assert hashed(0.5) != hashed(0.25)
