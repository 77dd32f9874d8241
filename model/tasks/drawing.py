"""What the ``show`` of a task draws with: pictures of inputs, text, frames, and the colours of classes."""

import colorsys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

from model.tasks.panels import SIDE, fitted

Colour = tuple[int, int, int]
GREY, RIGHT, WRONG = (70, 70, 70), (0, 114, 178), (200, 60, 0)
"""Colours that most people tell apart: of what is given, of what is right (blue), and of what is wrong (orange)."""
_TEXT, _SMALL, _FRAME = 13, 10, 3
_LEAST_INSIDE = 6
"""A region whose inner pixels are all nearer to its edge than this has no room for a name."""
_GOLDEN = 0.618034


def pictures_of(inputs: Tensor) -> NDArray[np.uint8]:
    """Images uint8 N x 3 x H x W, as a pack has them, as pictures of the size of panels."""
    return fitted(inputs.permute(0, 2, 3, 1).contiguous().numpy())


def captioned(picture: NDArray[np.uint8], lines: Sequence[str], colour: Colour) -> NDArray[np.uint8]:
    """A copy of a picture H x W x 3 with a frame, and lines of text on a strip of its colour at the bottom."""
    image = Image.fromarray(picture)
    draw, (width, height) = ImageDraw.Draw(image), image.size
    font = ImageFont.load_default(_TEXT)
    top = height - _FRAME - (_TEXT + 3) * len(lines)
    draw.rectangle((0, top, width, height), fill=colour)
    draw.rectangle((0, 0, width - 1, height - 1), outline=colour, width=_FRAME)
    for number, line in enumerate(lines):
        text = _shortened(line, width - 4 * _FRAME, font)
        draw.text((2 * _FRAME, top + (_TEXT + 3) * number), text, fill=(255, 255, 255), font=font)
    return np.asarray(image)


def _shortened(text: str, room: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text, or as much of its beginning as there is room for (in pixels)."""
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(f"{text}…") > room:
        text = text[:-1]
    return f"{text}…"


def class_colours(count: int) -> NDArray[np.uint8]:
    """A colour a class, [count, 3]: hues that lie apart, in turns light and dark."""
    shades = ((0.65, 0.95), (0.9, 0.65), (0.45, 0.8))
    colours = [colorsys.hsv_to_rgb(place * _GOLDEN % 1.0, *shades[place % len(shades)]) for place in range(count)]
    return np.round(255 * np.array(colours).reshape(count, 3)).astype(np.uint8)


def coloured(pictures: NDArray[np.uint8], masks: NDArray[np.uint8], names: Sequence[str]) -> NDArray[np.uint8]:
    """Pictures N x H x W x 3 under the colours of the classes N x H x W, each large region with the name of its class.

    What is of no class of ``names`` stays as it is.
    """
    known = masks < len(names)
    colours = class_colours(len(names))[np.where(known, masks, 0)]
    over = np.where(known[..., None], np.round(0.35 * pictures + 0.65 * colours), pictures).astype(np.uint8)
    return np.stack([_named(one, mask, names) for one, mask in zip(over, masks, strict=True)])


def _named(picture: NDArray[np.uint8], mask: NDArray[np.uint8], names: Sequence[str]) -> NDArray[np.uint8]:
    """The picture with the names of its regions; a name that would lie on another one is left out."""
    image = Image.fromarray(picture)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(_SMALL)
    taken: list[tuple[float, float, float]] = []
    for place in np.unique(mask):
        if place < len(names) and (middle := _inside(mask == place)) is not None:
            y, half = middle[0], font.getlength(names[place]) / 2 + 2
            x = min(max(middle[1], half), max(image.width - half, half))
            if any(abs(y - row) < _SMALL and abs(x - column) < half + room for row, column, room in taken):
                continue
            taken.append((y, x, half))
            look: dict[str, Any] = {"fill": (255, 255, 255), "stroke_fill": (0, 0, 0), "stroke_width": 1}
            draw.text((x, y), names[place], anchor="mm", font=font, **look)
    return np.asarray(image)


def _inside(region: NDArray[np.bool_]) -> tuple[int, int] | None:
    """Row and column of the pixel of a region that is farthest from its edge; None where there is little room."""
    left = torch.from_numpy(region.astype(np.float32))[None]
    middle = None
    for layer in range(SIDE // 4):
        if not left.any():
            break
        if layer >= _LEAST_INSIDE:
            middle = left[0].nonzero()
        left = -functional.max_pool2d(-functional.pad(left, (1, 1, 1, 1)), 3, 1)
    if middle is None:
        return None
    y, x = middle[len(middle) // 2].tolist()
    return y, x
