"""Procedural surfaces of a room: each function draws its own parameters and returns a ``Paint``.

A paint maps texture coordinates in metres to linear albedo; lines are widened to the pixel's footprint and
faded by as much, so that patterns do not shimmer in the distance.
"""

import numpy as np

from model.data.rooms.raytrace import Array, Paint

Generator = np.random.Generator

WALL_COLOURS = (
    (0.86, 0.84, 0.78), (0.90, 0.90, 0.88), (0.80, 0.80, 0.78), (0.84, 0.78, 0.66), (0.66, 0.74, 0.78),
    (0.70, 0.76, 0.66), (0.82, 0.70, 0.60), (0.78, 0.66, 0.66), (0.60, 0.66, 0.72), (0.88, 0.82, 0.62),
)  # fmt: skip
WOOD_COLOURS = (
    (0.62, 0.43, 0.26), (0.45, 0.28, 0.16), (0.74, 0.57, 0.38), (0.30, 0.19, 0.12), (0.55, 0.36, 0.20),
    (0.68, 0.60, 0.50), (0.80, 0.68, 0.50),
)  # fmt: skip
CLOTH_COLOURS = (
    (0.24, 0.30, 0.42), (0.46, 0.20, 0.18), (0.38, 0.40, 0.30), (0.62, 0.58, 0.50), (0.30, 0.30, 0.32),
    (0.66, 0.46, 0.26), (0.24, 0.42, 0.40), (0.52, 0.40, 0.52), (0.80, 0.76, 0.70), (0.16, 0.18, 0.24),
    (0.55, 0.62, 0.70),
)  # fmt: skip


def _cloud(seed: int, slope: float) -> Array:
    """A periodic 512 x 512 field with power falling as 1/f^slope, zero mean, unit deviation."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.rfftfreq(512)[None, :]) * 512
    spectrum = np.fft.rfft2(rng.standard_normal((512, 512))) / np.maximum(frequency, 1) ** slope
    field = np.fft.irfft2(spectrum, s=(512, 512))
    return ((field - field.mean()) / field.std()).astype(np.float32)


_SMOOTH, _ROUGH = _cloud(1, 1.6), _cloud(2, 0.5)


def noise(u: Array, v: Array, per_metre: float, field: Array = _SMOOTH) -> Array:
    """Bilinear look-up of a cloud with ``per_metre`` samples a metre."""
    x, y = u * np.float32(per_metre), v * np.float32(per_metre)
    x0, y0 = np.floor(x), np.floor(y)
    fx, fy = x - x0, y - y0
    i, j = x0.astype(np.int32) & 511, y0.astype(np.int32) & 511
    i1, j1 = (i + 1) & 511, (j + 1) & 511
    top = field[i, j] * (1 - fy) + field[i, j1] * fy
    return top * (1 - fx) + (field[i1, j] * (1 - fy) + field[i1, j1] * fy) * fx


def rough_noise(u: Array, v: Array, per_metre: float) -> Array:
    """Fibres and leaves: the rougher cloud."""
    return noise(u, v, per_metre, _ROUGH)


def hash(*cells: Array) -> Array:
    """A number in [0, 1) for each integer cell."""
    mixed = np.zeros(cells[0].shape, np.uint32)
    for factor, cell in zip((73856093, 19349663, 83492791), cells, strict=False):
        mixed = mixed * np.uint32(2654435761) + cell.astype(np.int64).astype(np.uint32) * np.uint32(factor)
    mixed ^= mixed >> np.uint32(13)
    mixed *= np.uint32(1274126177)
    mixed ^= mixed >> np.uint32(16)
    return (mixed & np.uint32(0xFFFFFF)).astype(np.float32) / np.float32(0x1000000)


def line(distance: Array, width: float, footprint: Array) -> Array:
    """Coverage in [0, 1] of a line of ``width`` metres whose centre is ``distance`` metres away."""
    reach = np.float32(width / 2) + footprint / 2
    return np.clip((reach - np.abs(distance)) / footprint, 0, 1) * np.minimum(1, width / footprint)


def fade(footprint: Array, period: float) -> Array:
    """How much of a pattern of ``period`` metres a pixel still resolves."""
    return np.clip(1.5 - 2 * footprint / np.float32(period), 0, 1)


def blend(first: Array, second: Array, amount: Array) -> Array:
    """Nx3 albedo between two, by ``amount`` (N) in [0, 1]."""
    return first + (second - first) * amount[:, None]


def tint(rng: Generator, colours: tuple[tuple[float, float, float], ...], spread: float = 0.05) -> Array:
    """One of the colours, a little off."""
    colour = np.array(colours[rng.integers(len(colours))]) * rng.uniform(1 - 2 * spread, 1 + spread)
    return np.clip(colour + rng.normal(0, spread / 2, 3), 0.03, 0.95).astype(np.float32)


def plain(rng: Generator, colour: Array, grain: float = 0.03) -> Paint:
    """Paint or plastic: one colour with soft stains."""
    shift = rng.uniform(0, 100, 2).astype(np.float32)

    def paint(u: Array, v: Array, footprint: Array) -> Array:
        return colour * (1 + np.float32(grain) * noise(u + shift[0], v + shift[1], 60))[:, None]

    return paint


def plaster(rng: Generator, colour: Array) -> Paint:
    """A painted wall: broad stains and a fine tooth."""
    shift, tooth = rng.uniform(0, 100, 2).astype(np.float32), rng.uniform(0.01, 0.05)

    def paint(u: Array, v: Array, footprint: Array) -> Array:
        value = 0.03 * noise(u + shift[0], v + shift[1], 25)
        value += tooth * rough_noise(u, v, 120) * fade(footprint, 0.02)
        return colour * (1 + value)[:, None].astype(np.float32)

    return paint


def wood(rng: Generator, colour: Array, along_u: bool = True) -> Paint:
    """Boards of furniture: long grain."""
    shift, depth = rng.uniform(0, 100, 2).astype(np.float32), rng.uniform(0.05, 0.14)

    def paint(u: Array, v: Array, footprint: Array) -> Array:
        along, across = (u, v) if along_u else (v, u)
        grain = noise(along * 0.12 + shift[0], across + shift[1], 180)
        return colour * (1 + np.float32(depth) * grain)[:, None]

    return paint


def planks(rng: Generator, colour: Array) -> Paint:
    """A floor of boards with staggered joints."""
    width, length = rng.uniform(0.07, 0.2), rng.uniform(0.7, 1.8)
    contrast, turned, shift = rng.uniform(0.05, 0.16), rng.random() < 0.5, rng.uniform(0, 50)

    def paint(u: Array, v: Array, footprint: Array) -> Array:
        across, along = (v, u) if turned else (u, v)
        row = np.floor(across / width)
        along = along + hash(row) * length + shift
        board = np.floor(along / length)
        value = 1 + contrast * (2 * hash(row, board) - 1) * 1.5 * fade(footprint, width)
        value += 0.08 * noise(along * 0.1 + row * 3.7, across, 200)
        joint = line(across - (np.round(across / width) * width), 0.006, footprint)
        joint = np.maximum(joint, line(along - np.round(along / length) * length, 0.005, footprint))
        return colour * (value * (1 - 0.65 * joint))[:, None].astype(np.float32)

    return paint


def tiles(rng: Generator, colour: Array) -> Paint:
    """Square or running tiles with grout; sometimes a chequerboard."""
    width = rng.uniform(0.12, 0.5)
    height = width * (1.0 if rng.random() < 0.7 else 0.5)
    offset = 0.5 if rng.random() < 0.3 else 0.0
    second = colour * rng.uniform(0.35, 0.7) if rng.random() < 0.25 else colour
    grout = np.float32(rng.uniform(0.35, 0.9))

    def paint(u: Array, v: Array, footprint: Array) -> Array:
        row = np.floor(v / height)
        across = u + offset * width * (row % 2)
        column = np.floor(across / width)
        value = 1 + 0.12 * (hash(row, column) - 0.5) + 0.03 * noise(u, v, 80)
        odd = ((row + column) % 2 > 0.5).astype(np.float32) * fade(footprint, width)
        albedo = blend(colour[None], np.asarray(second, np.float32)[None], odd) * value[:, None]
        seam = line(across - np.round(across / width) * width, 0.008, footprint)
        seam = np.maximum(seam, line(v - np.round(v / height) * height, 0.008, footprint))
        return blend(albedo, np.full((1, 3), 0.75 * grout, np.float32), seam).astype(np.float32)

    return paint


def carpet(rng: Generator, colour: Array, half: Array | None = None) -> Paint:
    """Pile with fibre noise; a rug of known half extent gets a border and a motif."""
    other, ring = tint(rng, CLOTH_COLOURS), rng.uniform(0.08, 0.18)
    motif, period = rng.integers(3), rng.uniform(0.15, 0.4)

    def paint(u: Array, v: Array, footprint: Array) -> Array:
        fibre = 0.14 * rough_noise(u, v, 260) * fade(footprint, 0.02) + 0.06 * noise(u, v, 40)
        albedo = np.broadcast_to(colour, (len(u), 3))
        if half is not None:
            edge = np.minimum(half[0] - np.abs(u), half[1] - np.abs(v))
            band = line(edge - ring, 0.05, footprint)
            if motif == 1:
                band = np.maximum(band, ((np.sin(u / period * 6.28) * np.sin(v / period * 6.28)) > 0.4) * 0.7)
            if motif == 2:
                band = np.maximum(band, (np.abs(v / period % 1 - 0.5) < 0.18) * 0.8)
            albedo = blend(albedo, other[None], band.astype(np.float32))
        return albedo * (1 + fibre)[:, None].astype(np.float32)

    return paint


def wallpaper(rng: Generator, colour: Array) -> Paint:
    """Stripes or a repeated sprig."""
    period, strength = rng.uniform(0.06, 0.3), rng.uniform(0.06, 0.3)
    second, sprig = colour * (1 - strength), rng.random() < 0.4

    def paint(u: Array, v: Array, footprint: Array) -> Array:
        if sprig:
            row = np.floor(v / period)
            x = (u / period + 0.5 * (row % 2)) % 1 - 0.5
            y = v / period % 1 - 0.5
            figure = (x * x * (2.5 + 2 * np.sin(9 * y)) + y * y < 0.09).astype(np.float32)
        else:
            figure = np.clip((np.abs(u / period % 1 - 0.5) - 0.25) * period / footprint + 0.5, 0, 1)
        figure = figure * fade(footprint, period) + 0.3 * (1 - fade(footprint, period))
        albedo = blend(colour[None], np.asarray(second, np.float32)[None], figure)
        return albedo * (1 + 0.02 * noise(u, v, 40))[:, None].astype(np.float32)

    return paint


def with_skirting(upper: Paint, skirting: Array, height: float, lower: Paint | None, dado: float) -> Paint:
    """A wall whose foot is a board of ``height`` metres and whose part below ``dado`` may differ."""

    def paint(u: Array, v: Array, footprint: Array) -> Array:
        albedo = upper(u, v, footprint)
        if lower is not None:
            below = v < dado
            albedo[below] = lower(u[below], v[below], footprint[below])
        foot = np.clip((height - v) / footprint + 0.5, 0, 1)
        shade = line(v - height, 0.012, footprint)
        return blend(albedo, skirting[None], foot) * (1 - 0.45 * shade)[:, None].astype(np.float32)

    return paint


def panels(rng: Generator, colour: Array, width: float, height: float, columns: int, rows: int) -> Paint:
    """A front of doors or drawers: seams every ``width/columns`` by ``height/rows``, handles, wood grain."""
    base = wood(rng, colour, along_u=rng.random() < 0.5)
    step_u, step_v, metal = width / columns, height / rows, np.float32(rng.uniform(0.15, 0.8))
    recessed = rng.random() < 0.5

    def paint(u: Array, v: Array, footprint: Array) -> Array:
        albedo = base(u, v, footprint)
        x, y = (u + width / 2) % step_u - step_u / 2, (v + height / 2) % step_v - step_v / 2
        to_seam = np.minimum(step_u / 2 - np.abs(x), step_v / 2 - np.abs(y))
        dark = 0.75 * line(to_seam, 0.012, footprint)
        if recessed:
            dark = np.maximum(dark, 0.35 * line(to_seam - 0.06, 0.012, footprint))
        albedo = albedo * (1 - dark)[:, None]
        handle = (np.abs(x) < min(0.06, step_u / 4)) & (np.abs(y - step_v * 0.32) < 0.012)
        albedo[handle] = metal
        return albedo.astype(np.float32)

    return paint


def books(rng: Generator) -> Paint:
    """Spines in a row."""
    width = rng.uniform(0.025, 0.045)
    shift = rng.uniform(0, 100)

    def paint(u: Array, v: Array, footprint: Array) -> Array:
        place = (u + shift) / width
        place = place + 0.35 * np.sin(place * 1.7)
        spine = np.floor(place)
        hue = np.stack([hash(spine), hash(spine + 911), hash(spine + 3571)], axis=1)
        albedo = 0.08 + 0.75 * hue * hash(spine + 77)[:, None]
        gap = line((place - np.round(place)) * width, 0.005, footprint)
        label = (np.abs(v - 0.03) < 0.02) & (hash(spine + 13) > 0.5)
        albedo = np.where(label[:, None], albedo * 0.5 + 0.35, albedo)
        return (albedo * (1 - 0.8 * gap)[:, None]).astype(np.float32)

    return paint
