"""Furniture that keeps things: cabinets, shelves, kitchen units, boxes; at the origin, its back at -y."""

import numpy as np

from model.data.rooms.decor import screen
from model.data.rooms.parts import Piece, box, clutter, labelled, solid
from model.data.rooms.textures import WOOD_COLOURS, books, panels, plain, tint, wood

Generator = np.random.Generator


def cabinet(rng: Generator, tall: bool | None = None) -> Piece:
    """A chest of drawers or a wardrobe."""
    tall = bool(rng.random() < 0.4) if tall is None else tall
    x, y = rng.uniform(0.4, 0.85), rng.uniform(0.2, 0.3)
    height = rng.uniform(1.8, 2.15) if tall else rng.uniform(0.7, 1.15)
    colour = tint(rng, WOOD_COLOURS) if rng.random() < 0.6 else tint(rng, ((0.85, 0.85, 0.82),))
    columns, rows = int(rng.integers(1, 4)), 1 if tall else int(rng.integers(2, 5))
    front = panels(rng, colour, 2 * x, height - 0.08, columns, rows)
    solids = [
        box((0, 0, 0), (2 * x - 0.06, 2 * y - 0.06, 0.08), plain(rng, colour * 0.4)),
        box((0, -0.01, 0.08), (2 * x, 2 * y - 0.02, height - 0.08), wood(rng, colour), gloss=0.1),
        box((0, y - 0.015, 0.09), (2 * x - 0.01, 0.03, height - 0.11), front, gloss=0.1),
    ]
    if not tall:
        solids += clutter(rng, x, y, height, 4)
    return Piece(labelled("storage", solids), x, y, 0.0, height)


def bookshelf(rng: Generator) -> Piece:
    """An open shelf whose boards carry rows of books."""
    x, y, height = rng.uniform(0.35, 0.6), rng.uniform(0.13, 0.18), rng.uniform(1.2, 2.1)
    paint, rows = wood(rng, tint(rng, WOOD_COLOURS)), int(height / rng.uniform(0.32, 0.4))
    step = (height - 0.1) / rows
    solids = [box((i * (x - 0.012), 0, 0), (0.025, 2 * y, height), paint) for i in (-1, 1)]
    solids.append(box((0, 0.01 - y, 0), (2 * x, 0.02, height), paint))
    for row in range(rows + 1):
        z = 0.06 + row * step
        solids.append(box((0, 0, z), (2 * x - 0.03, 2 * y, 0.022), paint))
        left = -x + 0.03
        while row < rows and left < x - 0.12:
            width = min(rng.uniform(0.15, 0.5), x - 0.03 - left)
            if rng.random() < 0.8:
                size = (width, 2 * y * rng.uniform(0.6, 0.85), step * rng.uniform(0.55, 0.85))
                solids.append(box((left + width / 2, -0.02, z + 0.022), size, books(rng)))
            left += width + rng.uniform(0, 0.06)
    return Piece(labelled("storage", solids), x, y, 0.02, height)


def television(rng: Generator) -> Piece:
    """A flat television on a low board."""
    x, y, height, wide = rng.uniform(0.6, 0.9), 0.22, rng.uniform(0.4, 0.55), rng.uniform(0.9, 1.3)
    colour, dark = tint(rng, WOOD_COLOURS), plain(rng, np.full(3, 0.04, np.float32))
    board = box((0, 0, 0.03), (2 * x, 2 * y, height - 0.03), panels(rng, colour, 2 * x, height - 0.03, 3, 1))
    display = [
        box((0, 0, height), (0.4, 0.22, 0.02), dark),
        box((0, 0, height), (0.08, 0.04, 0.12), dark),
        box((0, 0, height + 0.08), (wide, 0.06, wide * 0.58), dark),
        box((0, 0.031, height + 0.1), (wide - 0.04, 0.006, wide * 0.58 - 0.04), screen(rng), gloss=0.6),
    ]
    return Piece((*labelled("storage", (board,)), *labelled("other", display)), x, y, 0.02, height)


def counter(rng: Generator) -> Piece:
    """A run of kitchen cupboards, with wall cupboards above and things between."""
    x, y, height = rng.uniform(0.9, 1.5), 0.31, rng.uniform(0.86, 0.93)
    colour = tint(rng, ((0.88, 0.87, 0.84), (0.6, 0.44, 0.28), (0.45, 0.5, 0.48), (0.3, 0.34, 0.4)))
    low = panels(rng, colour, 2 * x, height - 0.14, round(2 * x / 0.5), 1)
    high = panels(rng, colour, 2 * x, 0.7, round(2 * x / 0.5), 1)
    stone, steel = (
        plain(rng, tint(rng, ((0.25, 0.25, 0.26), (0.7, 0.68, 0.64), (0.5, 0.36, 0.24))), 0.1),
        0.55,
    )
    solids = [
        box((0, -0.03, 0), (2 * x, 2 * y - 0.1, 0.1), plain(rng, colour * 0.3)),
        box((0, 0, 0.1), (2 * x, 2 * y, height - 0.14), low),
        box((0, 0.01, height - 0.04), (2 * x + 0.02, 2 * y + 0.02, 0.04), stone, gloss=0.4),
        box((0, 0.16 - y, 1.4), (2 * x, 0.32, 0.7), high),
        box((-x / 2, 0, height), (0.58, 0.5, 0.008), plain(rng, np.full(3, 0.04, np.float32)), gloss=0.6),
        solid(
            "cylinder",
            (x / 2, 0.04 - y, height),
            (0.03, 0.03, 0.3),
            plain(rng, np.full(3, steel, np.float32)),
        ),
        *clutter(rng, x, y, height, 6),
    ]
    return Piece(labelled("storage", solids), x, y, 0.05, height)


def fridge(rng: Generator) -> Piece:
    """A fridge."""
    height, colour = (
        rng.uniform(1.5, 1.9),
        tint(rng, ((0.86, 0.86, 0.86), (0.6, 0.61, 0.62), (0.1, 0.1, 0.11))),
    )
    front = panels(rng, colour, 0.62, height, 1, 2)
    body = box((0, 0, 0), (0.62, 0.64, height), front, gloss=0.3)
    return Piece(labelled("storage", (body,)), 0.31, 0.32, 0.0, height)


def cartons(rng: Generator) -> Piece:
    """Boxes and a bin on the floor."""
    card = tint(rng, ((0.6, 0.45, 0.3), (0.8, 0.78, 0.72), (0.3, 0.35, 0.45)))
    size = tuple(rng.uniform(0.22, 0.5, 3))
    solids = [box((0, 0, 0), size, panels(rng, card, size[0], size[2], 1, 1), yaw=rng.uniform(-0.4, 0.4))]
    if rng.random() < 0.5:
        upper = (size[0] * 0.7, size[1] * 0.7, rng.uniform(0.12, 0.3))
        solids.append(box((0.02, 0, size[2]), upper, plain(rng, card * 0.9), yaw=rng.uniform(-0.6, 0.6)))
    return Piece(labelled("other", solids), size[0] * 0.6, size[1] * 0.6, 0.0, size[2])
