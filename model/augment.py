"""Augmentation of whole batches on the training device; validation, calibration and test never come here."""

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

_TRANSFORM = v2.Compose(
    [
        v2.RandomHorizontalFlip(0.5),
        v2.ColorJitter(brightness=0.25, contrast=0.25, saturation=0.25, hue=0.05),
        v2.RandomGrayscale(0.05),
    ]
)
_GROUPS = 4


def augment(images: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    """Flip and jitter uint8 Nx3xHxW images with their Nx1xhxw depth; draws from torch's global generator.

    The batch is cut into up to four groups and each group draws once, which keeps the work batched.
    """
    groups = zip(images.chunk(_GROUPS), depth.chunk(_GROUPS), strict=True)
    pairs = [_TRANSFORM(tv_tensors.Image(image), tv_tensors.Mask(truth)) for image, truth in groups]
    new_images = torch.cat([image.as_subclass(Tensor) for image, _ in pairs])
    new_depth = torch.cat([truth.as_subclass(Tensor) for _, truth in pairs])
    return new_images, new_depth
