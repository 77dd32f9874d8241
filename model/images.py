"""What pictures and depth maps are measured in: the scaling of the input, sizes, and the largest depth."""

import functools

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MAX_DEPTH_M = 10.0
"""Depths are cut off here; networks and targets hold them as fractions of it."""
MAX_DEPTH_MM = round(1000 * MAX_DEPTH_M)
LARGEST_SIZE = 2048
"""Of the input's side, in pixels."""


def normalize(images: Tensor) -> Tensor:
    """Scale RGB images N x 3 x H x W in 0..255 to float32 by the ImageNet mean and deviation, on their device."""
    mean, std = _mean_and_std(images.device)
    return (images.to(torch.float32) / 255.0).sub_(mean).div_(std)


@functools.cache
def _mean_and_std(device: torch.device) -> tuple[Tensor, Tensor]:
    """1 x 3 x 1 x 1 on a device; made once, because a GPU is waited for when they are brought there."""
    with torch.inference_mode(False):
        mean, std = torch.tensor(IMAGENET_MEAN, device=device), torch.tensor(IMAGENET_STD, device=device)
        return mean.view(1, 3, 1, 1), std.view(1, 3, 1, 1)
