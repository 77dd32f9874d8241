"""Little picture files as people have them, and broken ones."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quarters(width=64, height=48):
    """Red top left, green top right, blue bottom left, white bottom right."""
    pixels = np.empty((height, width, 3), np.uint8)
    top, left = np.arange(height)[:, None] < height // 2, np.arange(width) < width // 2
    for rows, columns, colour in (
        (top, left, RED),
        (top, ~left, GREEN),
        (~top, left, BLUE),
        (~top, ~left, WHITE),
    ):
        pixels[rows & columns] = colour
    return Image.fromarray(pixels)


def noise(width=64, height=48, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def save(path, image=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (noise() if image is None else image).save(path, **options)
    return path


def corners(pixels):
    """The colours at the corners of a 3 x S x S picture: top left, top right, bottom left, bottom right."""
    return [tuple(pixels[:, y, x].tolist()) for y in (1, -2) for x in (1, -2)]


def png(width, height, bits, colour, rows):
    """The bytes of a PNG with any header; ``rows`` are its packed rows."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def jpeg(image):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95)
    return file.getvalue()
