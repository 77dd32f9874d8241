"""Augmentation of whole batches on the training device; validation, calibration and test never come here.

Every picture has its own flip and its own colours. Brightness, contrast, saturation, hue and greyscale are all affine
in the colours of a pixel, so they are one 3x3 matrix and an offset a picture, as in NVIDIA DALI's ``color_twist``: one
product for the batch.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

_FLIPPED, _GREY = 0.5, 0.05
_BRIGHTNESS = _CONTRAST = _SATURATION = 0.25
_HUE = 0.05
"""Of a turn, to both sides."""
_LUMA = torch.tensor([0.299, 0.587, 0.114])
_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def augment(images: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    """Flip and colour uint8 Nx3xHxW images, and flip their NxCxhxw depth; draws from torch's global generator.

    The images come back as float32 in [0, 255], not rounded.
    """
    flips = torch.rand(len(images)) < _FLIPPED
    return _coloured(images, flips), flipped(depth, flips)


def augment_images(images: Tensor) -> Tensor:
    """Flip and colour images alone, as ``augment`` does."""
    return _coloured(images, torch.rand(len(images)) < _FLIPPED)


def random_resized_crops(images: Tensor, least_area: float) -> Tensor:
    """A part of each float NxCxHxW image, drawn at random, at the size of the whole.

    It has ``least_area`` (at most 3/4) to all of its area, and its sides a ratio of 3/4 to 4/3 of the image's (Szegedy
    et al. 2015, arXiv:1409.4842); draws from torch's global generator.
    """
    count = len(images)
    area = least_area + (1.0 - least_area) * torch.rand(count)
    stretch = torch.exp(math.log(4.0 / 3.0) * (torch.rand(count) - 0.5))
    sides = torch.stack([area.sqrt() * stretch, area.sqrt() / stretch], 1).clamp_(max=1.0)
    centres = (1.0 - sides) * (2.0 * torch.rand(count, 2) - 1.0)  # the image goes from -1 to 1
    maps = torch.cat([torch.diag_embed(sides), centres[:, :, None]], 2).to(images.device, non_blocking=True)
    grid = functional.affine_grid(maps, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def flip_together(*planes: Tensor) -> list[Tensor]:
    """Mirror half of the images in each of several NxCxHxW stacks, the same ones in all."""
    flips = torch.rand(len(planes[0])) < _FLIPPED
    return [flipped(one, flips) for one in planes]


def flipped(planes: Tensor, flips: Tensor) -> Tensor:
    """NxCxHxW with those mirrored of which ``flips`` [N] is true."""
    return _flip_each(planes, flips) if planes.device.type == "cpu" else _flip_at_once(planes, flips)


def _coloured(images: Tensor, flips: Tensor) -> Tensor:
    # Not blocking: the step goes on while a GPU still works on the one before.
    matrix, contrast, luma = (drawn.to(images.device, non_blocking=True) for drawn in (*_draw(len(images)), _LUMA))
    pixels = flipped(images, flips).flatten(2).float()
    # Contrast turns about the mean grey, which the rest of the matrix leaves grey.
    grey = (matrix @ pixels.mean(2, keepdim=True) * luma.reshape(3, 1)).sum(1, keepdim=True)
    coloured = torch.baddbmm((1.0 - contrast) * grey, contrast * matrix, pixels).clamp_(0.0, 255.0)
    return coloured.reshape(images.shape)


def _flip_each(planes: Tensor, flips: Tensor) -> Tensor:
    """NxCxHxW with some mirrored, one copy a picture: on a CPU a tenth of the time of the other."""
    pairs = zip(planes, flips.tolist(), strict=True)
    return torch.stack([one.flip(2) if mirrored else one for one, mirrored in pairs])


def _flip_at_once(planes: Tensor, flips: Tensor) -> Tensor:
    """The same in two kernels for all pictures: what a GPU spends on each picture of the other is its start."""
    return torch.where(flips.to(planes.device, non_blocking=True)[:, None, None, None], planes.flip(3), planes)


def _draw(count: int) -> tuple[Tensor, Tensor]:
    """For each picture the matrix of brightness, saturation and hue (N, 3, 3), and the contrast (N, 1, 1)."""
    brightness, contrast, saturation, hue = (
        centre + width * (2.0 * torch.rand(count, 1, 1) - 1.0)
        for centre, width in ((1.0, _BRIGHTNESS), (1.0, _CONTRAST), (1.0, _SATURATION), (0.0, 2.0 * math.pi * _HUE))
    )
    saturation = torch.where(torch.rand(count, 1, 1) < _GREY, 0.0, saturation)
    cos, sin = saturation * hue.cos(), saturation * hue.sin()
    zero, one = torch.zeros_like(hue), torch.ones_like(hue)
    rows = ((one, zero, zero), (zero, cos, -sin), (zero, sin, cos))  # saturation is the length of the chroma
    turned = torch.cat([torch.cat(row, 2) for row in rows], 1)
    return brightness * (torch.linalg.inv(_YIQ) @ turned @ _YIQ), contrast
