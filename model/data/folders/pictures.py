"""One picture file, whatever its kind, as the RGB square that a network reads.

A picture is turned upright as its EXIF says. Grey, palette, CMYK and transparent pictures become RGB (transparency is
dropped), and 16 bits become 8 by 65535 = 255.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor

from model.data.nyu_frames import FORMATS, MOST_PIXELS
from model.errors import InputError

Resize = Literal["whole", "shorter side", "none"]
"""How a picture becomes a square; the shorter side is resized to S / 0.875, and its centre cut out."""
_CROPPED = 0.875  # the usual share of the shorter side that evaluation sees: 224 of 256
_DRAFTS = (8, 4, 2)  # by what the decoder of JPEG can shrink
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")


@dataclass(frozen=True)
class Picture:
    """Pixels uint8 (3 x S x S of a picture, S x S of a mask), and width and height of the whole upright file."""

    pixels: Tensor
    whole: tuple[int, int]


def read_picture(path: Path, size: int, resize: Resize = "whole") -> Picture:
    """The picture in RGB at ``size`` x ``size``; raises InputError where it is broken, huge, or no picture.

    "whole" shrinks all of it bilinearly, "shorter side" bicubically, both with antialiasing; "none" cuts out the centre
    and raises InputError where the picture is smaller than that.
    """
    with opened(path) as image:
        whole = upright_size(image)
        if resize == "none":
            square = _centre(path, rgb(ImageOps.exif_transpose(image)), size)
        else:
            edge = size if resize == "whole" else round(size / _CROPPED)
            _draft(image, edge)
            upright = rgb(ImageOps.exif_transpose(image))
            square = _squeezed(upright, size) if resize == "whole" else _evaluated(upright, whole, edge, size)
        return Picture(torch.from_numpy(np.array(square).transpose(2, 0, 1).copy()), whole)


@contextlib.contextmanager
def opened(path: Path, formats: tuple[str, ...] = FORMATS) -> Iterator[ImageFile.ImageFile]:
    """A picture of which only the header is read yet; what its decoder raises inside becomes an InputError.

    Raises InputError where the file is missing, of no format that may be decoded, too large, or of several pictures.
    """
    where, kinds = shown(path), " or ".join(formats)
    if not path.is_file():  # a pipe would be waited for
        raise InputError(where, "is not a file, or a broken link", "a picture", "Remove it.")
    try:
        with Image.open(path, formats=formats) as image:
            if image.width * image.height > MOST_PIXELS:
                raise _too_large(where, f"has {image.width} x {image.height} pixels")
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # the first of an MPO is the photograph, the others previews
                raise InputError(where, f"holds {frames} pictures", "a single one", "Save its frames as files.")
            yield image
    except InputError:
        raise
    except UnidentifiedImageError:
        problem = "is empty" if path.stat().st_size == 0 else f"is no {kinds} picture"
        raise InputError(where, problem, "a whole picture", "Remove it, or see --skip-bad.") from None
    except Image.DecompressionBombError:
        raise _too_large(where, "has far too many pixels") from None
    except Exception as error:  # decoders raise anything on broken bytes
        problem = f"cannot be read ({error})"
        raise InputError(where, problem, "a whole picture", "Copy it again, or see --skip-bad.") from None


def shown(path: Path) -> str:
    """A path as it is printed: escaped where the terminal would take it for something else."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height as the picture is seen: those of the header, or swapped."""
    turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
    return (image.height, image.width) if turned else image.size


def require_same_size(first: Path, of_first: tuple[int, int], second: Path, of_second: tuple[int, int]) -> None:
    """Raise InputError unless both files are as wide and as high."""
    if of_first != of_second:
        problem = f"has {of_second[0]} x {of_second[1]} pixels, and {shown(first)} {of_first[0]} x {of_first[1]}"
        turned = of_first == of_second[::-1]
        hint = "A picture that its EXIF orientation turns is compared as it is seen." if turned else ""
        raise InputError(shown(second), problem, "one size", hint)


def rgb(image: Image.Image) -> Image.Image:
    """The image in RGB; raises ValueError where its values have no known range."""
    if image.mode in _DEEP:
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"its values are from {values.min()} to {values.max()}, beyond 16 bits")
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its values are floating point numbers, whose range is unknown")
    if image.mode == "P" and "transparency" in image.info:  # else Pillow warns at every such picture
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def _too_large(where: str, problem: str) -> InputError:
    return InputError(where, problem, f"at most {MOST_PIXELS / 1e6:g} million", "Make it smaller, or see --skip-bad.")


def _draft(image: ImageFile.ImageFile, edge: int) -> None:
    """Have a JPEG shrunk while it is decoded, which is many times faster, to no less than twice the size it will have.

    Only by a number that divides both sides: the decoder fills up the last pixels of others, which moves the picture.
    """
    for scale in _DRAFTS:
        if min(image.size) >= 2 * scale * edge and image.width % scale == image.height % scale == 0:
            image.draft(None, (image.width // scale, image.height // scale))
            break


def _squeezed(image: Image.Image, size: int) -> Image.Image:
    return image.resize((size, size), Image.Resampling.BILINEAR)


def _evaluated(image: Image.Image, whole: tuple[int, int], edge: int, size: int) -> Image.Image:
    """The centre of the image whose shorter side is resized to ``edge``, rounded as torchvision does.

    Only the centre is computed: a strip of 50000 x 10 would not fit into memory at its new size.
    """
    short = min(whole)
    corner, scale = [], []
    for side, now in zip(whole, image.size, strict=True):
        resized = edge if side == short else int(edge * side / short)
        corner.append(round((resized - size) / 2))
        scale.append(now / resized)
    left, top = corner[0] * scale[0], corner[1] * scale[1]
    right, bottom = left + size * scale[0], top + size * scale[1]
    box = (left, top, min(right, image.width), min(bottom, image.height))
    return image.resize((size, size), Image.Resampling.BICUBIC, box)


def _centre(path: Path, image: Image.Image, size: int) -> Image.Image:
    if min(image.size) < size:
        problem = f"has {image.width} x {image.height} pixels"
        hint = "It is not enlarged, which would hide what is to be restored. Set a smaller data.input_size."
        raise InputError(shown(path), problem, f"at least {size} x {size}", hint)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))
