"""A furnished room drawn at random: shell, openings, furniture without overlaps, lights, and where to stand in it."""

from dataclasses import dataclass

import numpy as np

from model.raytrace import Array, Camera, Paint, Solid, cast
from model.room_decor import curtain, outdoors, picture
from model.room_furniture import AGAINST_WALL, Piece, box, chair, place, solid, table, turn
from model.room_textures import (
    CLOTH_COLOURS,
    WALL_COLOURS,
    WOOD_COLOURS,
    carpet,
    panels,
    plain,
    planks,
    plaster,
    tiles,
    tint,
    wallpaper,
    with_skirting,
)

Generator = np.random.Generator


@dataclass(frozen=True, eq=False)
class Light:
    """A lamp or a window: ``spread`` metres of radius soften its shadows; a ``facing`` makes it shine one way."""

    position: Array
    colour: Array
    spread: float
    facing: Array | None = None


@dataclass(frozen=True, eq=False)
class Footprint:
    """The ground under a piece: centre, half extents, yaw, and how far above the floor its body begins."""

    x: float
    y: float
    half_x: float
    half_y: float
    yaw: float
    clearance: float
    top: float

    @property
    def reach(self) -> tuple[float, float]:
        """Half extents of the axis-aligned rectangle around it."""
        c, s = abs(np.cos(self.yaw)), abs(np.sin(self.yaw))
        return self.half_x * c + self.half_y * s, self.half_x * s + self.half_y * c


@dataclass(frozen=True, eq=False)
class Scene:
    """A room: extent in metres, a paint for x=0, x=w, y=0, y=d, floor and ceiling, what stands in it, what lights it."""

    room: Array
    shell: tuple[Paint, ...]
    floor_gloss: float
    solids: tuple[Solid, ...]
    lights: tuple[Light, ...]
    ambient: Array
    footprints: tuple[Footprint, ...]


def make_scene(rng: Generator) -> Scene:
    """Draw a room."""
    kind = ("living", "bedroom", "kitchen", "office")[rng.integers(4)]
    room = np.array([rng.uniform(2.8, 6.5), rng.uniform(2.8, 7.5), rng.uniform(2.35, 2.9)], np.float32)
    solids: list[Solid] = []
    footprints: list[Footprint] = []
    blocked: list[list[tuple[float, float]]] = [[] for _ in range(4)]
    lights = _openings(rng, room, solids, blocked)
    _along_walls(rng, kind, room, solids, footprints, blocked)
    _in_the_middle(rng, kind, room, solids, footprints)
    _on_walls(rng, room, solids, blocked, footprints)
    lights += _lamps(rng, room, solids, len(lights))
    strength = rng.uniform(0.22, 0.45)
    ambient = (strength * rng.normal(1, 0.04, 3)).astype(np.float32)
    shell, gloss = _shell(rng, kind)
    return Scene(room, shell, gloss, tuple(solids), tuple(lights), ambient, tuple(footprints))


def _shell(rng: Generator, kind: str) -> tuple[tuple[Paint, ...], float]:
    colour, skirting = tint(rng, WALL_COLOURS), tint(rng, ((0.88, 0.88, 0.86), (0.5, 0.34, 0.2)))
    height, style = rng.uniform(0.06, 0.14), rng.random()
    lower = None
    if kind == "kitchen" and rng.random() < 0.6:
        lower = tiles(rng, tint(rng, WALL_COLOURS))
    elif rng.random() < 0.2:
        lower = plaster(rng, tint(rng, WALL_COLOURS) * 0.8)
    dado, feature = rng.uniform(0.9, 1.6), rng.integers(8)
    walls = []
    for side in range(4):
        own = tint(rng, WALL_COLOURS) * 0.85 if side == feature else colour
        upper = wallpaper(rng, own) if style < 0.3 or side == feature else plaster(rng, own)
        walls.append(with_skirting(upper, skirting, height, lower, dado))
    draw = rng.random()
    if kind == "kitchen" or draw < 0.12:
        floor, gloss = tiles(rng, tint(rng, ((0.72, 0.7, 0.66), (0.55, 0.5, 0.45), (0.6, 0.42, 0.32)))), 0.25
    elif draw < 0.7:
        floor, gloss = planks(rng, tint(rng, WOOD_COLOURS)), rng.uniform(0.05, 0.3)
    else:
        floor, gloss = carpet(rng, tint(rng, CLOTH_COLOURS)), 0.0
    return (*walls, floor, plaster(rng, tint(rng, ((0.9, 0.9, 0.89), (0.86, 0.84, 0.8))))), gloss


def _wall_frame(room: Array, side: int) -> tuple[float, float, float, float]:
    """Origin x, y and yaw of a frame whose x runs along wall ``side`` and whose y points inside, and its length."""
    w, d = float(room[0]), float(room[1])
    return ((0, d, -np.pi / 2, d), (w, 0, np.pi / 2, d), (0, 0, 0, w), (w, d, np.pi, w))[side]


def _on_wall(solids: list[Solid], room: Array, side: int, along: float, things: list[Solid]) -> None:
    x, y, yaw, _ = _wall_frame(room, side)
    moved = place(tuple(things), along, 0.0, 0.0)
    solids += place(moved, x, y, yaw)


def _openings(
    rng: Generator, room: Array, solids: list[Solid], blocked: list[list[tuple[float, float]]]
) -> list[Light]:
    """One or two windows (each a light that shines inwards) and a door."""
    lights: list[Light] = []
    white = plain(rng, tint(rng, ((0.85, 0.85, 0.84), (0.4, 0.27, 0.16), (0.8, 0.8, 0.78))))
    order = rng.permutation(4)
    for side in order[: rng.integers(1, 3)]:
        x0, y0, yaw, length = _wall_frame(room, side)
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
            parts.append(box((0, 0.06, 0.12), (1.6 * half, 0.1, 0.5), fins))
        _on_wall(solids, room, side, along, parts)
        blocked[side].append((along - half - 0.25, along + half + 0.25))
        frame = turn(yaw)
        centre = np.array([along, 0.12, sill + tall * 0.55], np.float32) @ frame + np.array([x0, y0, 0], np.float32)
        sun = np.array([1.0, 1.0, 1.05]) * rng.uniform(1.5, 5.0) * half * tall
        lights.append(Light(centre, sun.astype(np.float32), 0.35 * half, frame[1]))
    side = order[3]
    length = _wall_frame(room, side)[3]
    half, tall, colour = rng.uniform(0.38, 0.46), rng.uniform(1.98, 2.1), tint(rng, WOOD_COLOURS + WALL_COLOURS[:3] * 2)
    along = rng.uniform(half + 0.2, length - half - 0.2)
    trim = plain(rng, colour * 0.9)
    parts = [box((0, 0.015, 0), (2 * half, 0.03, tall), panels(rng, colour, 2 * half, tall, 1, 2), casts_shadow=False)]
    parts += [box((i * (half + 0.035), 0.02, 0), (0.07, 0.05, tall + 0.07), trim, casts_shadow=False) for i in (-1, 1)]
    parts.append(box((0, 0.02, tall), (2 * half + 0.14, 0.05, 0.07), trim, casts_shadow=False))
    knob = (rng.choice([-1, 1]) * (half - 0.07), 0.06, 0.98)
    parts.append(solid("ellipsoid", knob, (0.06, 0.06, 0.06), plain(rng, np.full(3, 0.5, np.float32)), gloss=0.8))
    _on_wall(solids, room, side, along, parts)
    blocked[side].append((along - half - 0.15, along + half + 0.15))
    return lights


def _free(footprints: list[Footprint], new: Footprint, room: Array, gap: float) -> bool:
    rx, ry = new.reach
    if not (rx <= new.x <= room[0] - rx and ry <= new.y <= room[1] - ry):
        return False
    for old in footprints:
        ox, oy = old.reach
        if abs(old.x - new.x) < rx + ox + gap and abs(old.y - new.y) < ry + oy + gap:
            return False
    return True


def _along_walls(
    rng: Generator,
    kind: str,
    room: Array,
    solids: list[Solid],
    footprints: list[Footprint],
    blocked: list[list[tuple[float, float]]],
) -> None:
    """Furniture with its back to a wall, tall pieces not in front of windows and doors."""
    choices = AGAINST_WALL[kind]
    for turn_number in range(rng.integers(4, 11)):
        piece = choices[0 if turn_number == 0 else rng.integers(len(choices))](rng)
        for _ in range(8):
            side = int(rng.integers(4))
            x0, y0, yaw, length = _wall_frame(room, side)
            if length < 2 * piece.half_x + 0.1:
                continue
            along = rng.uniform(piece.half_x + 0.03, length - piece.half_x - 0.03)
            low = piece.top < 0.9 and len(blocked[side]) and blocked[side][0][1] - blocked[side][0][0] > 1.3
            if not low and any(along + piece.half_x > a and along - piece.half_x < b for a, b in blocked[side]):
                continue
            inward = piece.half_y + rng.uniform(0.03, 0.1)
            x, y = (np.array([along, inward, 0], np.float32) @ turn(yaw))[:2] + (x0, y0)
            new = Footprint(x, y, piece.half_x, piece.half_y, yaw, piece.clearance, piece.top)
            if _free(footprints, new, room, 0.03):
                solids += place(piece.solids, x, y, yaw)
                footprints.append(new)
                break


def _in_the_middle(
    rng: Generator, kind: str, room: Array, solids: list[Solid], footprints: list[Footprint]
) -> None:
    """A table with chairs, or a low table, and perhaps a rug below."""
    low = kind in ("living", "bedroom") and rng.random() < 0.7
    piece: Piece = table(rng, low)
    for _ in range(6):
        x, y = rng.uniform(0.25, 0.75) * room[0], rng.uniform(0.25, 0.75) * room[1]
        yaw = rng.choice([0, np.pi / 2]) + rng.normal(0, 0.12)
        new = Footprint(x, y, piece.half_x, piece.half_y, yaw, piece.clearance, piece.top)
        if not _free(footprints, new, room, 0.25):
            continue
        solids += place(piece.solids, x, y, yaw)
        footprints.append(new)
        for sx, sy, facing in ((0.5, -1, 0.0), (-0.5, -1, 0.0), (0.5, 1, np.pi), (-0.5, 1, np.pi)):
            if low or rng.random() < 0.25:
                continue
            seat = chair(rng)
            local = np.array([sx * piece.half_x, sy * (piece.half_y + rng.uniform(0.0, 0.35)), 0], np.float32)
            cx, cy = (local @ turn(yaw))[:2] + (x, y)
            angle = yaw + facing + rng.normal(0, 0.15)
            spot = Footprint(cx, cy, seat.half_x, seat.half_y, angle, seat.clearance, seat.top)
            if _free([f for f in footprints if f is not new], spot, room, 0.0):
                solids += place(seat.solids, cx, cy, angle)
                footprints.append(spot)
        break
    if rng.random() < 0.5:
        half = np.array([rng.uniform(0.7, 1.3), rng.uniform(0.5, 0.9)], np.float32)
        rug = carpet(rng, tint(rng, CLOTH_COLOURS), half)
        x, y = rng.uniform(0.35, 0.65) * room[0], rng.uniform(0.35, 0.65) * room[1]
        yaw = rng.choice([0, np.pi / 2]) + rng.normal(0, 0.08)
        solids.append(box((x, y, 0), (2 * half[0], 2 * half[1], 0.012), rug, yaw=yaw, casts_shadow=False))


def _on_walls(
    rng: Generator,
    room: Array,
    solids: list[Solid],
    blocked: list[list[tuple[float, float]]],
    footprints: list[Footprint],
) -> None:
    """Pictures where the wall is free."""
    for side in range(4):
        length = _wall_frame(room, side)[3]
        for _ in range(rng.integers(0, 4)):
            half = np.array([rng.uniform(0.15, 0.5), rng.uniform(0.15, 0.4)], np.float32)
            along = rng.uniform(half[0] + 0.1, length - half[0] - 0.1)
            if any(along + half[0] > a and along - half[0] < b for a, b in blocked[side]):
                continue
            blocked[side].append((along - half[0] - 0.05, along + half[0] + 0.05))
            at = (0, 0.012, rng.uniform(1.45, 1.65) - half[1])
            thing = box(at, (2 * half[0], 0.024, 2 * half[1]), picture(rng, half), gloss=0.1, casts_shadow=False)
            _on_wall(solids, room, side, along, [thing])


def _lamps(rng: Generator, room: Array, solids: list[Solid], windows: int) -> list[Light]:
    """The glow of standing lamps and, often, a lamp below the ceiling."""
    lights = []
    warm = np.array([1.0, rng.uniform(0.72, 0.95), rng.uniform(0.5, 0.9)])
    for shade in [s for s in solids if s.emission == 0.9][:1]:
        lights.append(Light(shade.centre, (warm * rng.uniform(0.5, 1.5)).astype(np.float32), 0.12))
    if windows + len(lights) < 2 or rng.random() < 0.4:
        drop = rng.uniform(0.05, 0.6)
        at = (room[0] * rng.uniform(0.4, 0.6), room[1] * rng.uniform(0.4, 0.6), float(room[2]) - drop)
        glow = plain(rng, warm.astype(np.float32))
        size = (0.35, 0.35, 0.16)
        solids.append(solid("ellipsoid", (at[0], at[1], at[2] - 0.1), size, glow, emission=0.9, casts_shadow=False))
        if drop > 0.15:
            cord = plain(rng, np.full(3, 0.1, np.float32))
            solids.append(solid("cylinder", at, (0.015, 0.015, drop), cord, casts_shadow=False))
        centre = np.array(at, np.float32) - np.array([0, 0, 0.14], np.float32)
        lights.append(Light(centre, (warm * rng.uniform(1.5, 4.0)).astype(np.float32), 0.15))
    return lights[: 3 - windows] if windows < 3 else []


def stand(rng: Generator, scene: Scene) -> Camera:
    """A hand-held camera 0.8 to 1.9 m up, clear of furniture, looking across the room (the best of a few draws)."""
    best, camera = -1.0, None
    for _ in range(10):
        spot = rng.uniform(0.3, scene.room[:2] - 0.3)
        height, away = rng.uniform(0.8, 1.9), rng.uniform(0.2, scene.room[:2] - 0.2)
        tangent = np.tan(np.radians(rng.uniform(48, 54) / 2))
        if any(
            abs(spot[0] - f.x) < f.reach[0] + 0.3 and abs(spot[1] - f.y) < f.reach[1] + 0.3 for f in scene.footprints
        ):
            continue
        yaw = np.arctan2(away[1] - spot[1], away[0] - spot[0])
        pitch, roll = np.radians(rng.normal(-12, 8)), np.radians(rng.normal(0, 2.0))
        found = Camera(np.array([*spot, height], np.float32), _look(yaw, pitch, roll), float(tangent))
        depth, _ = cast(found, 24, scene.room, scene.solids)
        score = float(depth.mean() + 1.5 * depth.std()) if depth.min() > 0.5 and depth.max() < 9.5 else 0.0
        score *= rng.uniform(0.7, 1.0)
        if score > best:
            best, camera = score, found
    if camera is None:
        middle = np.array([scene.room[0] / 2, scene.room[1] / 2, 1.85], np.float32)
        camera = Camera(middle, _look(rng.uniform(0, 6.28), -0.2, 0.0), 0.47)
    return camera


def _look(yaw: float, pitch: float, roll: float) -> Array:
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    down = np.cross(forward, right)
    turned = np.cos(roll) * right + np.sin(roll) * down
    return np.stack([turned, np.cross(forward, turned), forward]).astype(np.float32)
