"""Small networks whose operators, MACs and float islands are known by hand."""

import torch
from torch import Tensor, fx, nn

from quant.calibrate import calibrate
from quant.recipe import CalibrateSpec
from quant.tracing.trace import fuse_bn

SIZE = 8


class Between(nn.Module):
    """A convolution, an activation without int8 kernels on some engines, a sum, and a convolution."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.middle = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.activation = activation
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        low = self.first(x)
        return self.last(low + self.activation(self.middle(low)))


MACS = {"first_0": 64 * 8 * 27, "middle": 64 * 8 * 9, "activation": 0, "add": 0, "last": 64 * 4 * 8}
WEIGHTS = {"first_0": 8 * 27, "middle": 8 * 9, "activation": 0, "add": 0, "last": 4 * 8}


def noise(count: int = 2) -> Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def prepared(network: nn.Module) -> fx.GraphModule:
    float_network = fuse_bn(network.eval(), noise(1))
    return calibrate(float_network, "per_channel", CalibrateSpec(activation_range="minmax"), noise())
