"""Light on what the rays hit, and the camera that records it."""

import numpy as np
from numpy.typing import NDArray

from model.data.rooms.raytrace import Array, Camera, cast, lit, surface
from model.data.rooms.scene import Scene

Generator = np.random.Generator

_NORMALS = np.array(
    [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]],
    dtype=np.float32,
)
_SUN_FLOWER = np.stack(
    [
        np.sqrt((np.arange(9) + 0.5) / 9) * np.cos(np.arange(9) * 2.39996),
        np.sqrt((np.arange(9) + 0.5) / 9) * np.sin(np.arange(9) * 2.39996),
        np.cos(np.arange(9) * 2.1),
    ],
    axis=1,
).astype(np.float32)


def render(
    scene: Scene, camera: Camera, size: int, rng: Generator
) -> tuple[NDArray[np.uint8], Array, NDArray[np.int32]]:
    """A picture (3 x size x size, uint8), its z-depth in metres (size/4 x size/4) and what each of its rays hit.

    The last (size x size) is coded as ``cast`` codes it: one ray goes through the centre of each pixel.
    """
    depth, seen = cast(camera, size, scene.room, scene.solids)
    points = (camera.rays(size) * depth[..., None] + camera.position).reshape(-1, 3)
    albedo, normals, gloss, emission = _materials(scene, camera, size, points, depth.ravel(), seen.ravel())
    light = _lighting(scene, camera, size, points, normals, gloss)
    occlusion = _occlusion(scene, points, normals)[:, None]
    glow = np.where(emission[:, None] > 0, albedo * emission[:, None] * 2.6, 0)
    radiance = albedo * (light[0] + scene.ambient * occlusion * _sky(normals)) * (emission[:, None] == 0)
    picture = (radiance + light[1] + glow).reshape(size, size, 3)
    return _expose(picture, rng), clean_depth(depth), seen


def clean_depth(depth: Array) -> Array:
    """Quarter-size depth: per 4x4 block the mean of the rays within 5% of the median, so edges stay sharp."""
    rows, columns = depth.shape
    blocks = depth.reshape(rows // 4, 4, columns // 4, 4).transpose(0, 2, 1, 3).reshape(rows // 4, columns // 4, 16)
    middle = np.partition(blocks, 7, axis=-1)[..., 7:8]
    near = np.abs(blocks - middle) < 0.05 * middle
    return ((blocks * near).sum(-1) / near.sum(-1)).astype(np.float32)


def _materials(
    scene: Scene, camera: Camera, size: int, points: Array, depth: Array, seen: NDArray[np.int32]
) -> tuple[Array, Array, Array, Array]:
    albedo, normals = np.zeros_like(points), np.zeros_like(points)
    gloss, emission = np.zeros(len(points), np.float32), np.zeros(len(points), np.float32)
    order = np.argsort(seen, kind="stable")
    codes, starts = np.unique(seen[order], return_index=True)
    for code, rows in zip(codes, np.split(order, starts[1:]), strict=True):
        at = points[rows]
        if code < 0:
            side = -1 - code
            paint, normal = scene.shell[side], np.broadcast_to(_NORMALS[side], at.shape)
            u, v = at[:, 1] if side < 2 else at[:, 0], at[:, 1] if side > 3 else at[:, 2]
            gloss[rows] = scene.floor_gloss if side == 4 else 0
        else:
            solid = scene.solids[code]
            paint = solid.paint
            normal, u, v = surface(solid, at)
            gloss[rows], emission[rows] = solid.gloss, solid.emission
        view = at - camera.position
        slant = np.abs(np.einsum("ij,ij->i", normal, view)) / np.linalg.norm(view, axis=1)
        footprint = depth[rows] * np.float32(2 * camera.tangent / size) / np.sqrt(np.maximum(slant, 0.05))
        albedo[rows] = paint(u, v, footprint)
        normals[rows] = normal
    return np.maximum(albedo, 0.01), normals, gloss, emission


def _lighting(
    scene: Scene, camera: Camera, size: int, points: Array, normals: Array, gloss: Array
) -> tuple[Array, Array]:
    """Diffuse irradiance and mirrored highlights; the lamp samples of 3x3 pixels differ and are averaged."""
    casters = tuple(solid for solid in scene.solids if solid.casts_shadow)
    tile = (np.arange(size)[:, None] % 3 * 3 + np.arange(size)[None] % 3).ravel()
    view = camera.position - points
    view /= np.linalg.norm(view, axis=1, keepdims=True)
    diffuse, mirrored = np.zeros_like(points), np.zeros_like(points)
    for light in scene.lights:
        samples = light.position + light.spread * _SUN_FLOWER[tile]
        towards = light.position - points
        square = np.einsum("ij,ij->i", towards, towards)
        direction = towards / np.sqrt(square)[:, None]
        facing = np.maximum(np.einsum("ij,ij->i", direction, normals), 0)
        strength = facing / (square + 0.35)
        if light.facing is not None:
            strength *= np.maximum(-(direction @ light.facing), 0) * 1.5
        rows = np.flatnonzero(strength > 1e-3)
        seen = np.zeros(len(points), np.float32)
        seen[rows] = lit(points[rows] + 0.004 * normals[rows], samples[rows], light.position, light.spread, casters)
        strength *= _box3(seen.reshape(size, size)).ravel()
        diffuse += strength[:, None] * light.colour
        shiny = np.flatnonzero((gloss > 0) & (strength > 1e-3))
        half = direction[shiny] + view[shiny]
        half /= np.linalg.norm(half, axis=1, keepdims=True)
        lobe = np.maximum(np.einsum("ij,ij->i", half, normals[shiny]), 0) ** 60
        mirrored[shiny] += (lobe * gloss[shiny] * strength[shiny] * 1.5)[:, None] * light.colour
    return diffuse, mirrored


def _box3(image: Array) -> Array:
    padded = np.pad(image, 1, mode="edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9


def _sky(normals: Array) -> Array:
    """Ambient light comes rather from above, and the floor returns some warm light."""
    up = normals[:, 2:3]
    return np.float32(0.85) + 0.15 * up + np.maximum(-up, 0) * np.array([0.22, 0.17, 0.12], np.float32)


def _occlusion(scene: Scene, points: Array, normals: Array) -> Array:
    """Corners of the room and the foot of furniture receive less ambient light."""
    open_share = np.ones(len(points), np.float32)
    for axis in range(3):
        away = 1 - normals[:, axis] ** 2
        for gap in (points[:, axis], scene.room[axis] - points[:, axis]):
            open_share *= 1 - 0.38 * away * np.exp(-np.maximum(gap, 0) / 0.28)
    floor = np.flatnonzero((points[:, 2] < 0.02) & (normals[:, 2] > 0.5))
    ground = points[floor]
    shade = np.ones(len(floor), np.float32)
    for spot in scene.footprints:
        c, s = np.float32(np.cos(spot.yaw)), np.float32(np.sin(spot.yaw))
        dx, dy = ground[:, 0] - np.float32(spot.x), ground[:, 1] - np.float32(spot.y)
        outside = np.hypot(
            np.maximum(np.abs(c * dx + s * dy) - spot.half_x, 0),
            np.maximum(np.abs(c * dy - s * dx) - spot.half_y, 0),
        )
        shade *= 1 - (0.6 if spot.clearance < 0.2 else 0.3) * np.exp(-outside / (0.1 + 0.3 * spot.clearance))
    open_share[floor] *= shade
    return open_share


def _expose(radiance: Array, rng: Generator) -> NDArray[np.uint8]:
    """A cheap sensor: exposure, white balance, vignette, shoulder, blur, shot and read noise, gamma."""
    size = len(radiance)
    balance = np.exp(rng.normal(0, 0.07, 3)).astype(np.float32)
    balance /= balance.mean()
    luminance = radiance.mean(-1)
    exposure = rng.uniform(0.2, 0.42) / max(float(np.minimum(luminance, np.quantile(luminance, 0.9)).mean()), 1e-3)
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    vignette = 1 - np.float32(rng.uniform(0.03, 0.16)) * (grid[:, None] ** 2 + grid[None] ** 2)
    signal = radiance * (np.float32(exposure) * balance) * vignette[..., None]
    knee = np.float32(0.75)
    signal = np.where(signal > knee, knee + (1 - knee) * (1 - np.exp(-(signal - knee) / (1 - knee))), signal)
    side = np.float32(rng.uniform(0.08, 0.22))
    for axis in (0, 1):
        padded = np.pad(signal, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        before, after = (padded[:-2], padded[2:]) if axis == 0 else (padded[:, :-2], padded[:, 2:])
        signal = (1 - 2 * side) * signal + side * (before + after)
    shot, read = rng.uniform(0.004, 0.02), rng.uniform(0.002, 0.008)
    noise = rng.standard_normal(signal.shape, dtype=np.float32)
    signal = signal + noise * np.sqrt(np.float32(shot**2) * signal + np.float32(read**2))
    encoded = np.clip(signal, 0, 1) ** np.float32(1 / rng.uniform(1.9, 2.3))
    return np.ascontiguousarray((encoded * 255 + 0.5).astype(np.uint8).transpose(2, 0, 1))
