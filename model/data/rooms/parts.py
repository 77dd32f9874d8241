"""What furniture is made of: solids placed around the origin, and the small things that stand on it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from model.data.rooms.raytrace import Array, Paint, Solid
from model.data.rooms.textures import CLOTH_COLOURS, plain, tint

Generator = np.random.Generator


@dataclass(frozen=True, eq=False)
class Piece:
    """Solids that move together, half their footprint, how far above the floor the body begins (metres)."""

    solids: tuple[Solid, ...]
    half_x: float
    half_y: float
    clearance: float = 0.0
    top: float = 0.0


@dataclass(frozen=True, eq=False)
class Light:
    """A lamp or a window: ``spread`` metres of radius soften its shadows, ``facing`` shines one way."""

    position: Array
    colour: Array
    spread: float
    facing: Array | None = None


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
    label: str = "",
) -> Solid:
    """A solid of ``size`` metres whose *bottom* centre is ``at``."""
    half = np.maximum(np.array(size, np.float32) / 2, 0.002)
    centre = np.array([at[0], at[1], at[2] + size[2] / 2], np.float32)
    return Solid(kind, centre, half, turn(yaw), paint, gloss, emission, casts_shadow, label)


def box(at: tuple[float, float, float], size: tuple[float, float, float], paint: Paint, **more: float | str) -> Solid:
    """A box standing on ``at``."""
    return solid("box", at, size, paint, **more)  # type: ignore[arg-type]


def labelled(label: str, solids: Iterable[Solid]) -> tuple[Solid, ...]:
    """The solids as parts of a ``label``; those that have a label of their own, as a cup on a table, keep it."""
    return tuple(one if one.label else replace(one, label=label) for one in solids)


def place(solids: tuple[Solid, ...], x: float, y: float, yaw: float, z: float = 0.0) -> tuple[Solid, ...]:
    """The solids turned about the origin and moved."""
    frame, shift = turn(yaw), np.array([x, y, z], np.float32)
    return tuple(replace(s, centre=s.centre @ frame + shift, axes=s.axes @ frame) for s in solids)


def legs(x: float, y: float, height: float, thick: float, paint: Paint, kind: str = "box") -> list[Solid]:
    """Four legs below a board of half extents ``x``, ``y``."""
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
    return list(labelled("other", things))
