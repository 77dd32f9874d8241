"""Furniture of ordinary sizes to sit, lie and work at. Each stands at the origin, its back at -y."""

from collections.abc import Callable

import numpy as np

from model.data.rooms.decor import cloth, leaves, screen
from model.data.rooms.parts import Piece, box, clutter, labelled, legs, solid
from model.data.rooms.storage_furniture import bookshelf, cabinet, cartons, counter, fridge, television
from model.data.rooms.textures import CLOTH_COLOURS, WOOD_COLOURS, plain, tint, wood

Generator = np.random.Generator


def table(rng: Generator, low: bool = False) -> Piece:
    """A dining table, or a low one for the sofa."""
    x, y = (rng.uniform(0.4, 0.6), rng.uniform(0.25, 0.4)) if low else (rng.uniform(0.5, 0.9), rng.uniform(0.35, 0.5))
    height = rng.uniform(0.38, 0.48) if low else rng.uniform(0.71, 0.78)
    paint, thick = wood(rng, tint(rng, WOOD_COLOURS)), rng.uniform(0.025, 0.05)
    kind = "box" if rng.random() < 0.6 else "cylinder"
    solids = legs(x - 0.04, y - 0.04, height - thick, rng.uniform(0.04, 0.08), paint, kind)
    solids.append(box((0, 0, height - thick), (2 * x, 2 * y, thick), paint, gloss=0.25))
    solids += clutter(rng, x, y, height, 5)
    return Piece(labelled("table", solids), x, y, height - thick, height)


def chair(rng: Generator) -> Piece:
    """A straight chair."""
    seat, half, back = rng.uniform(0.43, 0.48), rng.uniform(0.2, 0.24), rng.uniform(0.8, 1.0)
    colour = tint(rng, WOOD_COLOURS)
    paint = wood(rng, colour)
    cover = paint if rng.random() < 0.5 else cloth(rng, tint(rng, CLOTH_COLOURS), 0.9)
    solids = legs(half, half, seat - 0.03, 0.035, paint)
    solids.append(box((0, 0, seat - 0.03), (2 * half, 2 * half, 0.05), cover))
    if rng.random() < 0.5:
        solids.append(box((0, 0.02 - half, seat + 0.1), (2 * half, 0.03, back - seat - 0.1), cover))
    else:
        solids += [box((i * (half - 0.02), 0.02 - half, seat), (0.035, 0.035, back - seat), paint) for i in (-1, 1)]
        solids += [box((0, 0.02 - half, z), (2 * half - 0.05, 0.02, 0.07), paint) for z in (seat + 0.2, back - 0.09)]
    return Piece(labelled("seat", solids), half, half, seat - 0.05, seat)


def bed(rng: Generator) -> Piece:
    """A single or double bed with pillows and a blanket."""
    double = rng.random() < 0.6
    x, y, height = (
        (rng.uniform(0.75, 0.9) if double else 0.48),
        rng.uniform(0.98, 1.06),
        rng.uniform(0.42, 0.58),
    )
    frame, linen = (
        wood(rng, tint(rng, WOOD_COLOURS)),
        plain(rng, tint(rng, ((0.85, 0.85, 0.83), (0.75, 0.8, 0.86)))),
    )
    blanket = cloth(rng, tint(rng, CLOTH_COLOURS), 0.4)
    solids = [
        box((0, 0, 0.08), (2 * x, 2 * y, 0.2), frame),
        box((0, 0.02, 0.26), (2 * x - 0.06, 2 * y - 0.08, height - 0.26), linen),
        box((0, 0.3, height - 0.17), (2 * x + 0.02, 2 * y - 0.58, 0.2), blanket),
        box((0, 0.03 - y, 0), (2 * x + 0.04, 0.06, rng.uniform(0.75, 1.2)), frame),
    ]
    for side in (-0.5, 0.5) if double else (0,):
        solids.append(solid("ellipsoid", (side * x, 0.32 - y, height - 0.04), (0.66, 0.42, 0.2), linen))
    return Piece(labelled("bed", solids), x, y, 0.05, height)


def sofa(rng: Generator) -> Piece:
    """A sofa or an armchair."""
    x, y = rng.choice([0.42, 0.75, 0.95, 1.05]) + rng.uniform(-0.04, 0.04), rng.uniform(0.4, 0.48)
    seat, back, arm = rng.uniform(0.4, 0.46), rng.uniform(0.75, 0.95), rng.uniform(0.1, 0.2)
    paint = cloth(rng, tint(rng, CLOTH_COLOURS), 0.85)
    solids = [
        box((0, 0, 0.06), (2 * x, 2 * y, seat - 0.18), paint),
        box((0, 0.12 - y, 0.06), (2 * x, 0.24, back - 0.06), paint),
        *(box((i * (x - arm / 2), 0, 0.06), (arm, 2 * y, rng.uniform(0.54, 0.6)), paint) for i in (-1, 1)),
    ]
    count = 1 if x < 0.5 else 2 if x < 0.9 else 3
    width = 2 * (x - arm) / count
    for i in range(count):
        middle = -x + arm + width * (i + 0.5)
        solids.append(box((middle, 0.1, seat - 0.13), (width - 0.02, 2 * y - 0.22, 0.15), paint))
    for _ in range(rng.integers(0, 3)):
        spot = (rng.uniform(-x + 0.3, x - 0.3) if x > 0.5 else 0.0, 0.32 - y, seat)
        solids.append(solid("ellipsoid", spot, (0.44, 0.2, 0.4), cloth(rng, tint(rng, CLOTH_COLOURS), 0.4)))
    return Piece(labelled("seat", solids), x, y, 0.04, seat)


def desk(rng: Generator) -> Piece:
    """A work desk with a display, a keyboard and things."""
    x, y, height = rng.uniform(0.55, 0.8), rng.uniform(0.3, 0.4), rng.uniform(0.71, 0.76)
    paint, dark = wood(rng, tint(rng, WOOD_COLOURS)), plain(rng, np.full(3, 0.06, np.float32))
    wide, tall = rng.uniform(0.45, 0.7), rng.uniform(0.28, 0.4)
    solids = [
        box((0, 0, height - 0.03), (2 * x, 2 * y, 0.03), paint, gloss=0.15),
        *(box((i * (x - 0.02), 0, 0), (0.03, 2 * y - 0.04, height - 0.03), paint) for i in (-1, 1)),
        box((0, 0.05 - y, height - 0.4), (2 * x - 0.06, 0.02, 0.37), paint),
    ]
    on_top = [
        solid("cylinder", (0, -0.1, height), (0.22, 0.16, 0.02), dark),
        box((0, -0.12, height), (0.05, 0.03, 0.16), dark),
        box((0, -0.1, height + 0.12), (wide, 0.04, tall), dark),
        box((0, -0.078, height + 0.135), (wide - 0.03, 0.004, tall - 0.03), screen(rng), gloss=0.5),
        box((0, 0.14, height), (0.42, 0.14, 0.02), plain(rng, np.full(3, rng.choice([0.08, 0.7]), np.float32))),
        *clutter(rng, x, y, height, 3),
    ]
    return Piece((*labelled("table", solids), *labelled("other", on_top)), x, y, height - 0.1, height)


def floor_lamp(rng: Generator) -> Piece:
    """A standing lamp; its shade glows."""
    height, metal = rng.uniform(1.4, 1.75), plain(rng, np.full(3, rng.choice([0.08, 0.5]), np.float32))
    shade = plain(rng, tint(rng, ((0.95, 0.86, 0.66), (0.92, 0.9, 0.84))))
    solids = (
        solid("cylinder", (0, 0, 0), (0.28, 0.28, 0.025), metal),
        solid("cylinder", (0, 0, 0), (0.025, 0.025, height), metal),
        solid("cylinder", (0, 0, height - 0.15), (0.36, 0.36, 0.28), shade, emission=0.9, casts_shadow=False),
    )
    return Piece(labelled("other", solids), 0.18, 0.18, 0.3, height)


def plant(rng: Generator) -> Piece:
    """A potted plant."""
    pot, height = (
        plain(rng, tint(rng, ((0.55, 0.3, 0.2), (0.8, 0.8, 0.78), (0.25, 0.25, 0.28)))),
        rng.uniform(0.6, 1.4),
    )
    solids = [
        solid("cylinder", (0, 0, 0), (0.3, 0.3, 0.28), pot),
        solid("cylinder", (0, 0, 0.2), (0.04, 0.04, height - 0.4), plain(rng, tint(rng, WOOD_COLOURS))),
    ]
    for _ in range(rng.integers(4, 9)):
        x, y, z = rng.uniform(-0.2, 0.2), rng.uniform(-0.2, 0.2), rng.uniform(0.3, height - 0.3)
        size = tuple(rng.uniform(0.15, 0.4, 3))
        solids.append(solid("ellipsoid", (x, y, z), size, leaves(rng), yaw=rng.uniform(0, 3)))
    return Piece(labelled("plant", solids), 0.22, 0.22, 0.0, height)


AGAINST_WALL: dict[str, tuple[Callable[[Generator], Piece], ...]] = {
    "living": (sofa, television, bookshelf, cabinet, floor_lamp, plant, sofa, bookshelf, cartons, desk),
    "bedroom": (bed, cabinet, desk, bookshelf, floor_lamp, cabinet, plant, cartons, sofa),
    "kitchen": (counter, fridge, counter, cabinet, plant, cartons, bookshelf),
    "office": (desk, bookshelf, desk, cabinet, bookshelf, plant, cartons, sofa, desk),
}
