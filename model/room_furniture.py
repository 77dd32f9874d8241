"""Furniture of ordinary sizes, each a handful of solids standing on the floor around the origin, its back at -y."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from model.raytrace import Array, Paint, Solid
from model.room_decor import cloth, leaves, screen
from model.room_textures import CLOTH_COLOURS, WOOD_COLOURS, books, panels, plain, tint, wood

Generator = np.random.Generator


@dataclass(frozen=True, eq=False)
class Piece:
    """Solids that move together, their half footprint, and how far above the floor the body begins (metres)."""

    solids: tuple[Solid, ...]
    half_x: float
    half_y: float
    clearance: float = 0.0
    top: float = 0.0


def turn(yaw: float) -> Array:
    """Rows are the axes of a frame turned by ``yaw`` radians about the vertical."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]], np.float32)


def solid(
    kind: str,
    at: tuple[float, float, float],
    size: tuple[float, float, float],
    paint: Paint,
    yaw: float = 0.0,
    gloss: float = 0.0,
    emission: float = 0.0,
    casts_shadow: bool = True,
) -> Solid:
    """A solid of ``size`` metres whose *bottom* centre is ``at``."""
    half = np.maximum(np.array(size, np.float32) / 2, 0.002)
    centre = np.array([at[0], at[1], at[2] + size[2] / 2], np.float32)
    return Solid(kind, centre, half, turn(yaw), paint, gloss, emission, casts_shadow)


def box(at: tuple[float, float, float], size: tuple[float, float, float], paint: Paint, **more: float) -> Solid:
    """A box standing on ``at``."""
    return solid("box", at, size, paint, **more)  # type: ignore[arg-type]


def place(solids: tuple[Solid, ...], x: float, y: float, yaw: float, z: float = 0.0) -> tuple[Solid, ...]:
    """The solids turned about the origin and moved."""
    frame, shift = turn(yaw), np.array([x, y, z], np.float32)
    return tuple(replace(s, centre=s.centre @ frame + shift, axes=s.axes @ frame) for s in solids)


def _legs(x: float, y: float, height: float, thick: float, paint: Paint, kind: str = "box") -> list[Solid]:
    return [
        solid(kind, (i * (x - thick), j * (y - thick), 0), (thick, thick, height), paint)
        for i in (-1, 1)
        for j in (-1, 1)
    ]


def clutter(rng: Generator, half_x: float, half_y: float, z: float, most: int) -> list[Solid]:
    """A few cups, bowls, books and balls on a surface."""
    things = []
    for _ in range(rng.integers(0, most + 1)):
        x, y = rng.uniform(-half_x, half_x) * 0.8, rng.uniform(-half_y, half_y) * 0.75
        paint, kind = plain(rng, tint(rng, CLOTH_COLOURS, 0.15)), rng.integers(4)
        if kind == 0:
            things.append(solid("cylinder", (x, y, z), (0.08, 0.08, rng.uniform(0.09, 0.25)), paint, gloss=0.3))
        elif kind == 1:
            size = (rng.uniform(0.15, 0.3), rng.uniform(0.1, 0.22), rng.uniform(0.02, 0.12))
            things.append(box((x, y, z), size, paint, yaw=rng.uniform(0, 3)))
        elif kind == 2:
            width = rng.uniform(0.08, 0.2)
            things.append(solid("ellipsoid", (x, y, z), (width, width, width * 0.9), paint, gloss=0.2))
        else:
            size = (rng.uniform(0.1, 0.3), rng.uniform(0.1, 0.2), rng.uniform(0.1, 0.3))
            things.append(box((x, y, z), size, paint, yaw=rng.uniform(0, 3)))
    return things


def table(rng: Generator, low: bool = False) -> Piece:
    """A dining table, or a low one for the sofa."""
    x, y = (rng.uniform(0.4, 0.6), rng.uniform(0.25, 0.4)) if low else (rng.uniform(0.5, 0.9), rng.uniform(0.35, 0.5))
    height = rng.uniform(0.38, 0.48) if low else rng.uniform(0.71, 0.78)
    paint, thick = wood(rng, tint(rng, WOOD_COLOURS)), rng.uniform(0.025, 0.05)
    kind = "box" if rng.random() < 0.6 else "cylinder"
    solids = _legs(x - 0.04, y - 0.04, height - thick, rng.uniform(0.04, 0.08), paint, kind)
    solids.append(box((0, 0, height - thick), (2 * x, 2 * y, thick), paint, gloss=0.25))
    solids += clutter(rng, x, y, height, 5)
    return Piece(tuple(solids), x, y, height - thick, height)


def chair(rng: Generator) -> Piece:
    """A straight chair."""
    seat, half, back = rng.uniform(0.43, 0.48), rng.uniform(0.2, 0.24), rng.uniform(0.8, 1.0)
    colour = tint(rng, WOOD_COLOURS)
    paint = wood(rng, colour)
    cover = paint if rng.random() < 0.5 else cloth(rng, tint(rng, CLOTH_COLOURS), 0.9)
    solids = _legs(half, half, seat - 0.03, 0.035, paint)
    solids.append(box((0, 0, seat - 0.03), (2 * half, 2 * half, 0.05), cover))
    if rng.random() < 0.5:
        solids.append(box((0, 0.02 - half, seat + 0.1), (2 * half, 0.03, back - seat - 0.1), cover))
    else:
        solids += [box((i * (half - 0.02), 0.02 - half, seat), (0.035, 0.035, back - seat), paint) for i in (-1, 1)]
        solids += [box((0, 0.02 - half, z), (2 * half - 0.05, 0.02, 0.07), paint) for z in (seat + 0.2, back - 0.09)]
    return Piece(tuple(solids), half, half, seat - 0.05, seat)


def bed(rng: Generator) -> Piece:
    """A single or double bed with pillows and a blanket."""
    double = rng.random() < 0.6
    x, y, height = (rng.uniform(0.75, 0.9) if double else 0.48), rng.uniform(0.98, 1.06), rng.uniform(0.42, 0.58)
    frame, linen = wood(rng, tint(rng, WOOD_COLOURS)), plain(rng, tint(rng, ((0.85, 0.85, 0.83), (0.75, 0.8, 0.86))))
    blanket = cloth(rng, tint(rng, CLOTH_COLOURS), 0.4)
    solids = [
        box((0, 0, 0.08), (2 * x, 2 * y, 0.2), frame),
        box((0, 0.02, 0.26), (2 * x - 0.06, 2 * y - 0.08, height - 0.26), linen),
        box((0, 0.3, height - 0.17), (2 * x + 0.02, 2 * y - 0.58, 0.2), blanket),
        box((0, 0.03 - y, 0), (2 * x + 0.04, 0.06, rng.uniform(0.75, 1.2)), frame),
    ]
    for side in (-0.5, 0.5) if double else (0,):
        solids.append(solid("ellipsoid", (side * x, 0.32 - y, height - 0.04), (0.66, 0.42, 0.2), linen))
    return Piece(tuple(solids), x, y, 0.05, height)


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
    return Piece(tuple(solids), x, y, 0.0, height)


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
    return Piece(tuple(solids), x, y, 0.02, height)


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
    return Piece(tuple(solids), x, y, 0.04, seat)


def desk(rng: Generator) -> Piece:
    """A work desk with a display, a keyboard and things."""
    x, y, height = rng.uniform(0.55, 0.8), rng.uniform(0.3, 0.4), rng.uniform(0.71, 0.76)
    paint, dark = wood(rng, tint(rng, WOOD_COLOURS)), plain(rng, np.full(3, 0.06, np.float32))
    wide, tall = rng.uniform(0.45, 0.7), rng.uniform(0.28, 0.4)
    solids = [
        box((0, 0, height - 0.03), (2 * x, 2 * y, 0.03), paint, gloss=0.15),
        *(box((i * (x - 0.02), 0, 0), (0.03, 2 * y - 0.04, height - 0.03), paint) for i in (-1, 1)),
        box((0, 0.05 - y, height - 0.4), (2 * x - 0.06, 0.02, 0.37), paint),
        solid("cylinder", (0, -0.1, height), (0.22, 0.16, 0.02), dark),
        box((0, -0.12, height), (0.05, 0.03, 0.16), dark),
        box((0, -0.1, height + 0.12), (wide, 0.04, tall), dark),
        box((0, -0.078, height + 0.135), (wide - 0.03, 0.004, tall - 0.03), screen(rng), gloss=0.5),
        box((0, 0.14, height), (0.42, 0.14, 0.02), plain(rng, np.full(3, rng.choice([0.08, 0.7]), np.float32))),
        *clutter(rng, x, y, height, 3),
    ]
    return Piece(tuple(solids), x, y, height - 0.1, height)


def television(rng: Generator) -> Piece:
    """A flat television on a low board."""
    x, y, height, wide = rng.uniform(0.6, 0.9), 0.22, rng.uniform(0.4, 0.55), rng.uniform(0.9, 1.3)
    colour, dark = tint(rng, WOOD_COLOURS), plain(rng, np.full(3, 0.04, np.float32))
    solids = [
        box((0, 0, 0.03), (2 * x, 2 * y, height - 0.03), panels(rng, colour, 2 * x, height - 0.03, 3, 1)),
        box((0, 0, height), (0.4, 0.22, 0.02), dark),
        box((0, 0, height), (0.08, 0.04, 0.12), dark),
        box((0, 0, height + 0.08), (wide, 0.06, wide * 0.58), dark),
        box((0, 0.031, height + 0.1), (wide - 0.04, 0.006, wide * 0.58 - 0.04), screen(rng), gloss=0.6),
    ]
    return Piece(tuple(solids), x, y, 0.02, height)


def counter(rng: Generator) -> Piece:
    """A run of kitchen cupboards, with wall cupboards above and things between."""
    x, y, height = rng.uniform(0.9, 1.5), 0.31, rng.uniform(0.86, 0.93)
    colour = tint(rng, ((0.88, 0.87, 0.84), (0.6, 0.44, 0.28), (0.45, 0.5, 0.48), (0.3, 0.34, 0.4)))
    low = panels(rng, colour, 2 * x, height - 0.14, round(2 * x / 0.5), 1)
    high = panels(rng, colour, 2 * x, 0.7, round(2 * x / 0.5), 1)
    stone, steel = plain(rng, tint(rng, ((0.25, 0.25, 0.26), (0.7, 0.68, 0.64), (0.5, 0.36, 0.24))), 0.1), 0.55
    solids = [
        box((0, -0.03, 0), (2 * x, 2 * y - 0.1, 0.1), plain(rng, colour * 0.3)),
        box((0, 0, 0.1), (2 * x, 2 * y, height - 0.14), low),
        box((0, 0.01, height - 0.04), (2 * x + 0.02, 2 * y + 0.02, 0.04), stone, gloss=0.4),
        box((0, 0.16 - y, 1.4), (2 * x, 0.32, 0.7), high),
        box((-x / 2, 0, height), (0.58, 0.5, 0.008), plain(rng, np.full(3, 0.04, np.float32)), gloss=0.6),
        solid("cylinder", (x / 2, 0.04 - y, height), (0.03, 0.03, 0.3), plain(rng, np.full(3, steel, np.float32))),
        *clutter(rng, x, y, height, 6),
    ]
    return Piece(tuple(solids), x, y, 0.05, height)


def fridge(rng: Generator) -> Piece:
    """A fridge."""
    height, colour = rng.uniform(1.5, 1.9), tint(rng, ((0.86, 0.86, 0.86), (0.6, 0.61, 0.62), (0.1, 0.1, 0.11)))
    front = panels(rng, colour, 0.62, height, 1, 2)
    return Piece((box((0, 0, 0), (0.62, 0.64, height), front, gloss=0.3),), 0.31, 0.32, 0.0, height)


def floor_lamp(rng: Generator) -> Piece:
    """A standing lamp; its shade glows."""
    height, metal = rng.uniform(1.4, 1.75), plain(rng, np.full(3, rng.choice([0.08, 0.5]), np.float32))
    shade = plain(rng, tint(rng, ((0.95, 0.86, 0.66), (0.92, 0.9, 0.84))))
    solids = (
        solid("cylinder", (0, 0, 0), (0.28, 0.28, 0.025), metal),
        solid("cylinder", (0, 0, 0), (0.025, 0.025, height), metal),
        solid("cylinder", (0, 0, height - 0.15), (0.36, 0.36, 0.28), shade, emission=0.9, casts_shadow=False),
    )
    return Piece(solids, 0.18, 0.18, 0.3, height)


def plant(rng: Generator) -> Piece:
    """A potted plant."""
    pot, height = plain(rng, tint(rng, ((0.55, 0.3, 0.2), (0.8, 0.8, 0.78), (0.25, 0.25, 0.28)))), rng.uniform(0.6, 1.4)
    solids = [
        solid("cylinder", (0, 0, 0), (0.3, 0.3, 0.28), pot),
        solid("cylinder", (0, 0, 0.2), (0.04, 0.04, height - 0.4), plain(rng, tint(rng, WOOD_COLOURS))),
    ]
    for _ in range(rng.integers(4, 9)):
        x, y, z = rng.uniform(-0.2, 0.2), rng.uniform(-0.2, 0.2), rng.uniform(0.3, height - 0.3)
        size = tuple(rng.uniform(0.15, 0.4, 3))
        solids.append(solid("ellipsoid", (x, y, z), size, leaves(rng), yaw=rng.uniform(0, 3)))
    return Piece(tuple(solids), 0.22, 0.22, 0.0, height)


def cartons(rng: Generator) -> Piece:
    """Boxes and a bin on the floor."""
    card = tint(rng, ((0.6, 0.45, 0.3), (0.8, 0.78, 0.72), (0.3, 0.35, 0.45)))
    size = tuple(rng.uniform(0.22, 0.5, 3))
    solids = [box((0, 0, 0), size, panels(rng, card, size[0], size[2], 1, 1), yaw=rng.uniform(-0.4, 0.4))]
    if rng.random() < 0.5:
        upper = (size[0] * 0.7, size[1] * 0.7, rng.uniform(0.12, 0.3))
        solids.append(box((0.02, 0, size[2]), upper, plain(rng, card * 0.9), yaw=rng.uniform(-0.6, 0.6)))
    return Piece(tuple(solids), size[0] * 0.6, size[1] * 0.6, 0.0, size[2])


AGAINST_WALL: dict[str, tuple[Callable[[Generator], Piece], ...]] = {
    "living": (sofa, television, bookshelf, cabinet, floor_lamp, plant, sofa, bookshelf, cartons, desk),
    "bedroom": (bed, cabinet, desk, bookshelf, floor_lamp, cabinet, plant, cartons, sofa),
    "kitchen": (counter, fridge, counter, cabinet, plant, cartons, bookshelf),
    "office": (desk, bookshelf, desk, cabinet, bookshelf, plant, cartons, sofa, desk),
}
