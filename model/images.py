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
    """Scale images N x C x H x W in 0..255 to float32, on their device.

    RGB by the ImageNet mean and deviation; images of another number of channels to [-1, 1].
    """
    mean, std = _mean_and_std(images.shape[1], images.device)
    return (images.to(torch.float32) / 255.0).sub_(mean).div_(std)


def to_network(inputs: Tensor) -> Tensor:
    """What a network takes of inputs as a pack holds them: uint8 images are normalized, other values stay."""
    return normalize(inputs) if inputs.dtype == torch.uint8 else inputs.to(torch.float32)


def mean_and_std(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """By which ``normalize`` scales each channel, in parts of 255."""
    if channels == len(IMAGENET_MEAN):
        return IMAGENET_MEAN, IMAGENET_STD
    return (0.5,) * channels, (0.5,) * channels


@functools.cache
def _mean_and_std(channels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """1 x C x 1 x 1 on a device; made once, because a GPU is waited for when they are brought there."""
    with torch.inference_mode(False):
        mean, std = (torch.tensor(one, device=device) for one in mean_and_std(channels))
        return mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1)
