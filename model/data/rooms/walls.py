"""What is set into the walls and hangs on them: windows with their light, a door, pictures."""

import numpy as np

from model.data.rooms.decor import curtain, outdoors, picture
from model.data.rooms.parts import Light, box, labelled, place, solid, turn
from model.data.rooms.raytrace import Array, Solid
from model.data.rooms.textures import CLOTH_COLOURS, WALL_COLOURS, WOOD_COLOURS, panels, plain, tint

Generator = np.random.Generator


def wall_frame(room: Array, side: int) -> tuple[float, float, float, float]:
    """Origin x, y and yaw of a frame whose x runs along wall ``side``, y inwards, and its length."""
    w, d = float(room[0]), float(room[1])
    return ((0, d, -np.pi / 2, d), (w, 0, np.pi / 2, d), (0, 0, 0, w), (w, d, np.pi, w))[side]


def _on_wall(solids: list[Solid], room: Array, side: int, along: float, label: str, things: list[Solid]) -> None:
    x, y, yaw, _ = wall_frame(room, side)
    moved = place(labelled(label, things), along, 0.0, 0.0)
    solids += place(moved, x, y, yaw)


def add_openings(
    rng: Generator, room: Array, solids: list[Solid], blocked: list[list[tuple[float, float]]]
) -> list[Light]:
    """One or two windows (each a light that shines inwards) and a door."""
    lights: list[Light] = []
    white = plain(rng, tint(rng, ((0.85, 0.85, 0.84), (0.4, 0.27, 0.16), (0.8, 0.8, 0.78))))
    order = rng.permutation(4)
    for side in order[: rng.integers(1, 3)]:
        x0, y0, yaw, length = wall_frame(room, side)
        half, sill = rng.uniform(0.45, min(1.1, length / 2 - 0.4)), rng.uniform(0.75, 1.0)
        top = rng.uniform(1.9, float(room[2]) - 0.2)
        along, tall = rng.uniform(half + 0.3, length - half - 0.3), top - sill
        parts = [box((0, 0.004, sill), (2 * half, 0.008, tall), outdoors(rng), emission=1.0, casts_shadow=False)]
        bars = [-half, half, *np.linspace(-half, half, int(rng.integers(1, 4)) + 1)[1:-1]]
        parts += [box((b, 0.015, sill), (0.06, 0.04, tall), white, casts_shadow=False) for b in bars]
        parts += [
            box((0, 0.015, z), (2 * half + 0.06, 0.04, 0.06), white, casts_shadow=False) for z in (sill, top - 0.06)
        ]
        parts.append(box((0, 0.06, sill - 0.03), (2 * half + 0.2, 0.16, 0.03), white))
        if rng.random() < 0.5:
            cloth = curtain(rng, tint(rng, CLOTH_COLOURS))
            for end in (-1, 1):
                wide = rng.uniform(0.25, 0.5)
                at = (end * (half + 0.05), 0.08, 0.05 if rng.random() < 0.6 else sill - 0.2)
                parts.append(box(at, (wide, 0.07, top + 0.12 - at[2]), cloth, casts_shadow=False))
            rod = plain(rng, np.full(3, 0.2, np.float32))
            parts.append(box((0, 0.08, top + 0.1), (2 * half + 0.6, 0.025, 0.025), rod, casts_shadow=False))
        if sill > 0.8 and rng.random() < 0.5:
            fins = panels(rng, np.full(3, 0.85, np.float32), 2 * half, 0.5, int(half / 0.05), 1)
            parts.append(box((0, 0.06, 0.12), (1.6 * half, 0.1, 0.5), fins, label="other"))
        _on_wall(solids, room, side, along, "window", parts)
        blocked[side].append((along - half - 0.25, along + half + 0.25))
        frame = turn(yaw)
        centre = np.array([along, 0.12, sill + tall * 0.55], np.float32) @ frame + np.array([x0, y0, 0], np.float32)
        sun = np.array([1.0, 1.0, 1.05]) * rng.uniform(1.5, 5.0) * half * tall
        lights.append(Light(centre, sun.astype(np.float32), 0.35 * half, frame[1]))
    side = order[3]
    length = wall_frame(room, side)[3]
    half, tall, colour = (
        rng.uniform(0.38, 0.46),
        rng.uniform(1.98, 2.1),
        tint(rng, WOOD_COLOURS + WALL_COLOURS[:3] * 2),
    )
    along = rng.uniform(half + 0.2, length - half - 0.2)
    trim = plain(rng, colour * 0.9)
    parts = [
        box(
            (0, 0.015, 0),
            (2 * half, 0.03, tall),
            panels(rng, colour, 2 * half, tall, 1, 2),
            casts_shadow=False,
        )
    ]
    parts += [box((i * (half + 0.035), 0.02, 0), (0.07, 0.05, tall + 0.07), trim, casts_shadow=False) for i in (-1, 1)]
    parts.append(box((0, 0.02, tall), (2 * half + 0.14, 0.05, 0.07), trim, casts_shadow=False))
    knob = (rng.choice([-1, 1]) * (half - 0.07), 0.06, 0.98)
    parts.append(solid("ellipsoid", knob, (0.06, 0.06, 0.06), plain(rng, np.full(3, 0.5, np.float32)), gloss=0.8))
    _on_wall(solids, room, side, along, "door", parts)
    blocked[side].append((along - half - 0.15, along + half + 0.15))
    return lights


def add_pictures(
    rng: Generator,
    room: Array,
    solids: list[Solid],
    blocked: list[list[tuple[float, float]]],
) -> None:
    """Pictures where the wall is free."""
    for side in range(4):
        length = wall_frame(room, side)[3]
        for _ in range(rng.integers(0, 4)):
            half = np.array([rng.uniform(0.15, 0.5), rng.uniform(0.15, 0.4)], np.float32)
            along = rng.uniform(half[0] + 0.1, length - half[0] - 0.1)
            if any(along + half[0] > a and along - half[0] < b for a, b in blocked[side]):
                continue
            blocked[side].append((along - half[0] - 0.05, along + half[0] + 0.05))
            at = (0, 0.012, rng.uniform(1.45, 1.65) - half[1])
            thing = box(at, (2 * half[0], 0.024, 2 * half[1]), picture(rng, half), gloss=0.1, casts_shadow=False)
            _on_wall(solids, room, side, along, "picture", [thing])
