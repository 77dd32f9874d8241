"""The FFNet decoder "Up-C": 1x1 adapters, a branch that adds coarse levels to finer ones, one concatenation.

Mehta et al. 2022, "Simple and Efficient Architectures for Semantic Segmentation", arXiv:2206.08236.
Interpolation sizes are integers fixed at build, so the graph is static for ``torch.fx`` and the int8 engines.
The names of the modules are those of the study's checkpoints (``fam_32_sm`` and so on).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConvBNReLU(nn.Module):
    """Convolution without bias, batch norm and ReLU; stride 1, size kept."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=False),
        )

    def forward(self, features: Tensor) -> Tensor:
        """N x C x H x W to N x out_channels x H x W."""
        activated: Tensor = self.layers(features)
        return activated


class Adapter(nn.Module):
    """1x1 convolutions that bring the encoder's four stages to the decoder's widths."""

    def __init__(self, in_channels: Sequence[int], out_channels: Sequence[int]) -> None:
        super().__init__()
        self.adapter_conv = nn.ModuleList(
            ConvBNReLU(before, after, kernel_size=1) for before, after in zip(in_channels, out_channels, strict=True)
        )

    def forward(self, stages: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Adapt the stages, finest first."""
        stage_4, stage_8, stage_16, stage_32 = stages
        adapt_4, adapt_8, adapt_16, adapt_32 = self.adapter_conv
        return adapt_4(stage_4), adapt_8(stage_8), adapt_16(stage_16), adapt_32(stage_32)


class UpBranch(nn.Module):
    """The branch from coarse to fine: each level gives a 3x3 "sm" output and a 1x1 "up" for the next finer.

    Levels are named 4, 8, 16, 32 as in the paper; the real strides follow from the encoder's sizes.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: Sequence[int], sizes: Sequence[int]) -> None:
        super().__init__()
        in_4, in_8, in_16, in_32 = in_channels
        out_4, out_8, out_16, out_32 = out_channels
        self.sizes = tuple(sizes)
        self.fam_32_sm = ConvBNReLU(in_32, out_32, kernel_size=3)
        self.fam_32_up = ConvBNReLU(in_32, in_16, kernel_size=1)
        self.fam_16_sm = ConvBNReLU(in_16, out_16, kernel_size=3)
        self.fam_16_up = ConvBNReLU(in_16, in_8, kernel_size=1)
        self.fam_8_sm = ConvBNReLU(in_8, out_8, kernel_size=3)
        self.fam_8_up = ConvBNReLU(in_8, in_4, kernel_size=1)
        self.fam_4 = ConvBNReLU(in_4, out_4, kernel_size=3)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Merge the adapted levels, finest first in and out."""
        level_4, level_8, level_16, level_32 = levels
        size_4, size_8, size_16, size_32 = self.sizes
        level_16 = resize(self.fam_32_up(level_32), size_32, size_16) + level_16
        level_8 = resize(self.fam_16_up(level_16), size_16, size_8) + level_8
        level_4 = resize(self.fam_8_up(level_8), size_8, size_4) + level_4
        return self.fam_4(level_4), self.fam_8_sm(level_8), self.fam_16_sm(level_16), self.fam_32_sm(level_32)


class UpsampleCat(nn.Module):
    """Resize all levels to the finest and concatenate them on channels."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = tuple(sizes)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Four levels, finest first, to one map of the finest size."""
        level_4, level_8, level_16, level_32 = levels
        size_4, size_8, size_16, size_32 = self.sizes
        return torch.cat(
            [
                level_4,
                resize(level_8, size_8, size_4),
                resize(level_16, size_16, size_4),
                resize(level_32, size_32, size_4),
            ],
            dim=1,
        )


class Decoder(nn.Module):
    """The encoder's four stages, finest first, to one map of ``sum(branch_channels)`` at the finest size."""

    def __init__(
        self,
        in_channels: Sequence[int],
        sizes: Sequence[int],
        base_channels: Sequence[int],
        branch_channels: Sequence[int],
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Adapter(in_channels, base_channels),
            UpBranch(base_channels, branch_channels, sizes),
            UpsampleCat(sizes),
        )

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Decode the stages."""
        merged: Tensor = self.layers(stages)
        return merged


def resize(features: Tensor, size: int, to: int) -> Tensor:
    """Bilinear, align-corners, from ``size`` to ``to`` pixels square; nothing where both are equal."""
    if size == to:
        return features
    return functional.interpolate(features, size=(to, to), mode="bilinear", align_corners=True)
