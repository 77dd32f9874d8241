"""Small networks, each with a kind of graph through which scales can or cannot go."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.quant.networks import Gate, settled

CHANNELS = 8


class Small(nn.Module):
    """A first convolution, something in the middle, and a last convolution."""

    def __init__(self, width: int = CHANNELS) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.other = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.last = nn.Conv2d(width, 2, 1)

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x)))


class Added(Small):
    def middle(self, x):
        x = F.relu(x)
        return F.relu(self.other(x) + x)


class Chain(Small):
    def middle(self, x):
        for _ in range(3):
            x = F.relu(x) + x
        return x


class Concatenated(Small):
    def __init__(self):
        super().__init__(2 * CHANNELS)

    def middle(self, x):
        x = F.relu(x)
        return torch.cat([x, F.relu(self.other(x))], 1)


class ConcatenatedWithItself(Small):
    def __init__(self):
        super().__init__(2 * CHANNELS)

    def middle(self, x):
        x = F.relu(x)
        return torch.cat([x, x], 1)


class ConcatenatedInHeight(Small):
    def middle(self, x):
        return torch.cat([F.relu(x), F.relu(self.other(x))], 2)


class Resized(Small):
    def middle(self, x):
        return F.interpolate(F.max_pool2d(F.relu(x), 2), scale_factor=2.0, mode="bilinear", align_corners=True)


class Gated(Small):
    def __init__(self):
        super().__init__()
        self.gate = Gate(CHANNELS)

    def middle(self, x):
        return self.gate(F.relu(x))


class Silu(Small):
    def middle(self, x):
        return F.silu(x)


class SiluModule(Small):
    def __init__(self):
        super().__init__()
        self.silu = nn.SiLU()

    def middle(self, x):
        return self.silu(x)


class Relu6(Small):
    def __init__(self):
        super().__init__()
        self.relu6 = nn.ReLU6()

    def middle(self, x):
        return self.relu6(x)


class AddedToInput(Small):
    def middle(self, x):
        return F.relu(x) + 1.0


class Squared(Small):
    def middle(self, x):
        return x * x


class SpatialGate(Small):
    def __init__(self):
        super().__init__()
        self.to_one = nn.Conv2d(CHANNELS, 1, 1)
        self.silu = nn.SiLU()

    def middle(self, x):
        return F.relu(self.to_one(x)) * self.silu(x)


COUNTS = {
    Small: CHANNELS,
    Added: CHANNELS,  # first, other and their sum share one class a channel
    Chain: CHANNELS,
    Concatenated: 2 * CHANNELS,
    ConcatenatedInHeight: 0,
    ConcatenatedWithItself: CHANNELS,
    Resized: CHANNELS,
    Gated: CHANNELS + 4,  # and the four channels inside the gate
    Silu: 0,
    SiluModule: 0,
    Relu6: 0,
    AddedToInput: 0,
    Squared: 0,
}


def made(kind: type[nn.Module], images: Tensor, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return settled(kind(), images)


@torch.no_grad()
def rescaled_(network: nn.Module, first: str, norm: str | None, last: str, factor: Tensor) -> None:
    """Multiply the channels between two convolutions by ``factor``; the function stays the same."""
    written = network.get_submodule(norm or first)
    written.weight.mul_(factor.reshape(-1, *[1] * (written.weight.dim() - 1)))
    if written.bias is not None:
        written.bias.mul_(factor)
    reader = network.get_submodule(last)
    reader.weight.div_(factor.reshape(-1, 1, 1, 1) if reader.groups > 1 else factor.reshape(1, -1, 1, 1))
