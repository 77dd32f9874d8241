"""A network of one's own, whole: 48,000 parameters, an image S x S in, a depth map S/4 x S/4 out."""

import torch
from torch import Tensor, nn


def build(input_size: int) -> nn.Module:
    """Return the network for images of ``input_size`` pixels; its weights are those to start training from."""
    return SmallDepth(width=16)


class SmallDepth(nn.Module):
    """Three levels going down, two coming up by addition and concatenation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.level_4 = nn.Sequential(unit(3, width, stride=2), unit(width, width, stride=2))
        self.level_8 = nn.Sequential(unit(width, 2 * width, stride=2), Residual(2 * width))
        self.level_16 = nn.Sequential(unit(2 * width, 4 * width, stride=2), Residual(4 * width))
        self.lateral = unit(4 * width, 2 * width, kernel=1)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.head = nn.Sequential(unit(3 * width, 2 * width), nn.Conv2d(2 * width, 1, kernel_size=1))

    def forward(self, images: Tensor) -> Tensor:
        """N x 3 x S x S, normalized by ImageNet's mean and deviation, to N x 1 x S/4 x S/4, fractions of 10 m."""
        fine = self.level_4(images)
        middle = self.level_8(fine)
        coarse = self.level_16(middle)
        merged = middle + self.up(self.lateral(coarse))
        return self.head(torch.cat([fine, self.up(merged)], dim=1))


class Residual(nn.Module):
    """A depthwise and a pointwise convolution with a skip around both."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(channels, channels, groups=channels), unit(channels, channels, kernel=1))

    def forward(self, features: Tensor) -> Tensor:
        """N x C x H x W to the same."""
        return features + self.body(features)


def unit(before: int, after: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm and ReLU, which become one int8 operator."""
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    )
