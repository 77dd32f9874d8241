"""What hangs, shines or grows in a room: pictures, the view from a window, patterned cloth, leaves."""

import numpy as np

from model.data.rooms.raytrace import Array, Paint
from model.data.rooms.textures import CLOTH_COLOURS, blend, fade, noise, rough_noise, tint

Generator = np.random.Generator


def picture(rng: Generator, half: Array) -> Paint:
    """A framed print: a landscape or a few discs and bars on a ground."""
    frame = np.full(3, rng.choice([0.06, 0.35, 0.85]), np.float32) * rng.uniform(0.8, 1, 3).astype(np.float32)
    border, mount = rng.uniform(0.015, 0.04), rng.uniform(0.0, 0.08)
    ground, marks = (
        tint(rng, CLOTH_COLOURS),
        [tint(rng, CLOTH_COLOURS, 0.2) for _ in range(rng.integers(3, 8))],
    )
    places, sizes = rng.uniform(-0.8, 0.8, (len(marks), 2)), rng.uniform(0.1, 0.6, (len(marks), 2))
    landscape, shift = rng.random() < 0.5, rng.uniform(0, 40)

    def paint(u: Array, v: Array, footprint: Array) -> Array:
        x, y = u / half[0], v / half[1]
        albedo = np.broadcast_to(ground, (len(u), 3)) * (1 + 0.15 * noise(u + shift, v, 90))[:, None]
        for mark, place, size in zip(marks, places, sizes, strict=True):
            if landscape:
                inside = y < place[1] + 0.25 * noise(u + 7 * shift * size[0], np.full_like(u, place[0]), 60)
            else:
                inside = ((x - place[0]) / size[0]) ** 2 + ((y - place[1]) / size[1]) ** 2 < 1
            albedo[inside] = mark
        edge = np.minimum(half[0] - np.abs(u), half[1] - np.abs(v))
        albedo[edge < border + mount] = 0.8
        albedo[edge < border] = frame
        return albedo.astype(np.float32)

    return paint


def outdoors(rng: Generator) -> Paint:
    """What a window shows: an overcast or blue sky above a soft, leafy or built-up skyline."""
    sky = np.array([0.75, 0.87, 1.0], np.float32) * rng.uniform(0.75, 1.0)
    leafy, stony = np.array([0.2, 0.3, 0.13]), np.array([0.42, 0.38, 0.34])
    light, share, red = rng.uniform(0.12, 0.5, 3)
    below = (leafy + (stony - leafy) * (2 * share - 0.24)) * (2 * light + 0.4) + np.array([0.2, 0, 0]) * (red - 0.3)
    below, horizon = below.astype(np.float32), rng.uniform(-0.6, 0.3)
    shift = rng.uniform(0, 40)

    def paint(u: Array, v: Array, footprint: Array) -> Array:
        skyline = np.clip((horizon + 0.15 * noise(u + shift, u * 0, 40) - v) / 0.08, 0, 1)
        albedo = blend(sky[None] * (0.9 + 0.1 * v)[:, None], below[None], skyline)
        return (albedo * (1 + 0.15 * noise(u, v + shift, 30))[:, None]).astype(np.float32)

    return paint


def cloth(rng: Generator, colour: Array, plain_chance: float = 0.5) -> Paint:
    """Woven stuff: plain, striped or checked."""
    second, period, style = tint(rng, CLOTH_COLOURS), rng.uniform(0.06, 0.25), rng.random()

    def paint(u: Array, v: Array, footprint: Array) -> Array:
        albedo = np.broadcast_to(colour, (len(u), 3))
        if style > plain_chance:
            band = (np.abs(u / period % 1 - 0.5) < 0.25) * 0.6
            if style > (1 + plain_chance) / 2:
                band = band + (np.abs(v / period % 1 - 0.5) < 0.25) * 0.35
            band = band * fade(footprint, period) + 0.3 * (1 - fade(footprint, period))
            albedo = blend(albedo, second[None], band.astype(np.float32))
        weave = 0.05 * noise(u, v, 45) + 0.06 * rough_noise(u, v, 300) * fade(footprint, 0.02)
        return (albedo * (1 + weave)[:, None]).astype(np.float32)

    return paint


def curtain(rng: Generator, colour: Array) -> Paint:
    """Vertical folds."""
    period, depth = rng.uniform(0.06, 0.14), rng.uniform(0.15, 0.35)

    def paint(u: Array, v: Array, footprint: Array) -> Array:
        fold = np.sin(u * (6.2832 / period) + 1.3 * np.sin(u * 9) + 0.3 * v)
        value = 1 + depth * fold * fade(footprint, period)
        return (colour * value[:, None]).astype(np.float32)

    return paint


def leaves(rng: Generator) -> Paint:
    """Foliage: dark gaps between lighter leaves."""
    colour = np.array([0.16, 0.34, 0.10], np.float32) * rng.uniform(0.6, 1.3, 3).astype(np.float32)

    def paint(u: Array, v: Array, footprint: Array) -> Array:
        return colour * np.clip(1 + 0.5 * rough_noise(u, v, 70), 0.25, 2)[:, None].astype(np.float32)

    return paint


def screen(rng: Generator) -> Paint:
    """A switched-off or showing display."""
    base = np.array([0.03, 0.03, 0.035], np.float32) + (rng.uniform(0, 0.5, 3) if rng.random() < 0.3 else 0)

    def paint(u: Array, v: Array, footprint: Array) -> Array:
        return (base * (1 + 0.2 * np.sin(5 * u + 4 * v))[:, None]).astype(np.float32)

    return paint
