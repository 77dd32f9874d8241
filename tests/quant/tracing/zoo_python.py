"""Small networks whose forward is Python that a recorder of operators stumbles over: 3x16x16 images."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@torch.fx.wrap
def gated(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x * torch.sigmoid(F.conv2d(x, weight, bias))


class WrappedFunction(nn.Module):
    """A function that torch.fx was told not to look into, as torchvision tells it of Swin's attention."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gate = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return gated(F.relu(self.stem(x)), self.gate.weight, self.gate.bias)


class Branches(nn.Module):
    """Branches on the mode and on sizes, an assertion, and a comparison of several sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide, self.last = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Any:
        assert x.shape[1] == 3, f"expected 3 channels, got {x.shape[1]}"
        assert x.dim() == 4
        x = self.stem(x).relu()
        if 4 <= x.shape[-1] <= x.shape[-2] < 64:
            x = self.wide(x).relu()
        x = x[..., : x.shape[-1] // 2 * 2, :]
        return (self.last(x), x) if self.training else self.last(x)


@dataclass
class Levels:
    fine: Tensor
    coarse: Tensor | None = None


class Neck(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.smooth = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, levels: Levels) -> Levels:
        assert levels.coarse is not None
        levels.fine = levels.fine + F.interpolate(self.smooth(levels.coarse), size=levels.fine.shape[2:])
        return levels


class DataclassInside(nn.Module):
    """A dataclass of tensors goes from module to module."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down, self.neck = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, 2, 1), Neck()
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor, *, scale: float = 1.0, **options: Any) -> Tensor:
        fine = F.relu(self.stem(x)) * scale
        return self.last(self.neck(Levels(fine, coarse=F.relu(self.down(fine)))).fine)


class WritesIntoSlices(nn.Module):
    """Part of a value is written in place, which torch.fx refuses: recorded by torch.export, look-ups and all."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.part, self.norm, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.GroupNorm(2, 8), nn.Linear(8, 5)
        self.table = nn.Parameter(torch.randn(3, 8))
        self.register_buffer("index", torch.tensor([2, 0, 1, 2]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x[:, :4] = self.part(x[:, :4])
        x = F.max_pool2d(F.silu(self.norm(x)), 2)
        x = torch.where(x > 0.1, x[:, [1, 0, 3, 2, 5, 4, 7, 6]], -x)
        return self.last(x.mean((2, 3)) + self.table[self.index].mean(0))


class ExportOnly(nn.Module):
    """Control flow on values that do not depend on the picture, a shared block, and a module made of keywords."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("wide", torch.tensor(True))
        self.conv, self.bn = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8)
        self.block, self.last = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.conv(x)))
        x = torch.vmap(lambda image: image * 2.0)(x)
        for _ in range(2):
            x = x + F.relu(self.block(x))
        out = x.new_empty(x.shape[0], 16, *x.shape[2:])
        out[:, :8], out[:, 8:] = x, x.flip(-1)
        return self.last(out)


class Resized(nn.Module):
    """Resized in a way that overshoots, and the parts of a split joined again without a name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(torch.relu(self.conv(x)), scale_factor=0.5, mode="bicubic")
        return self.last(torch.cat([torch.cat(x.split(4, 1), 1), x], 1))


class BranchOnValues(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = BrightOrDark()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class BrightOrDark(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.mean() > 0:
            return self.conv(x)
        return self.conv(-x)


class OtherwiseByBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if len(x) == 1 else self.conv(x) * (len(x) + 1)
