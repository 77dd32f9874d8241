"""A furnished room drawn at random: shell, furniture without overlaps, lights."""

from dataclasses import dataclass

import numpy as np

from model.data.rooms.furniture import AGAINST_WALL, chair, table
from model.data.rooms.parts import Light, Piece, box, labelled, place, solid, turn
from model.data.rooms.raytrace import Array, Paint, Solid
from model.data.rooms.textures import (
    CLOTH_COLOURS,
    WALL_COLOURS,
    WOOD_COLOURS,
    carpet,
    plain,
    planks,
    plaster,
    tiles,
    tint,
    wallpaper,
    with_skirting,
)
from model.data.rooms.walls import add_openings, add_pictures, wall_frame

Generator = np.random.Generator


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
    """A room: extent in metres; paints of x=0, x=w, y=0, y=d, floor, ceiling; what is in it."""

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
    lights = add_openings(rng, room, solids, blocked)
    _along_walls(rng, kind, room, solids, footprints, blocked)
    _in_the_middle(rng, kind, room, solids, footprints)
    add_pictures(rng, room, solids, blocked)
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
            x0, y0, yaw, length = wall_frame(room, side)
            if length < 2 * piece.half_x + 0.1:
                continue
            along = rng.uniform(piece.half_x + 0.03, length - piece.half_x - 0.03)
            low = piece.top < 0.9 and len(blocked[side]) and blocked[side][0][1] - blocked[side][0][0] > 1.3
            if not low and any(along + piece.half_x > a and along - piece.half_x < b for a, b in blocked[side]):
                continue
            inward = piece.half_y + rng.uniform(0.03, 0.1)
            x, y = (np.array([along, inward, 0], np.float32) @ turn(yaw))[:2] + np.array([x0, y0])
            new = Footprint(x, y, piece.half_x, piece.half_y, yaw, piece.clearance, piece.top)
            if _free(footprints, new, room, 0.03):
                solids += place(piece.solids, x, y, yaw)
                footprints.append(new)
                break


def _in_the_middle(rng: Generator, kind: str, room: Array, solids: list[Solid], footprints: list[Footprint]) -> None:
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
            cx, cy = (local @ turn(yaw))[:2] + np.array([x, y])
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
        solids.append(
            box((x, y, 0), (2 * half[0], 2 * half[1], 0.012), rug, yaw=yaw, casts_shadow=False, label="floor")
        )


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
        hanging = [solid("ellipsoid", (at[0], at[1], at[2] - 0.1), size, glow, emission=0.9, casts_shadow=False)]
        if drop > 0.15:
            cord = plain(rng, np.full(3, 0.1, np.float32))
            hanging.append(solid("cylinder", at, (0.015, 0.015, drop), cord, casts_shadow=False))
        solids += labelled("other", hanging)
        centre = np.array(at, np.float32) - np.array([0, 0, 0.14], np.float32)
        lights.append(Light(centre, (warm * rng.uniform(1.5, 4.0)).astype(np.float32), 0.15))
    return lights[: 3 - windows] if windows < 3 else []
