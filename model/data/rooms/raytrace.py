"""Exact ray casting of boxes, elliptic cylinders and ellipsoids in numpy: what is seen, what is in shadow.

Every solid is a unit shape under an affine map, so one ray transform serves all three kinds and the ray
parameter ``t`` survives it. Camera rays advance one metre along the optical axis, so ``t`` is z-depth.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = np.ndarray  # float32 unless said otherwise
Paint = Callable[[Array, Array, Array], Array]  # (u metres, v metres, pixel footprint metres) -> Nx3 linear albedo

FAR = np.float32(1e6)
_CORNERS = np.array(
    [[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)],
    dtype=np.float32,
)


@dataclass(frozen=True, eq=False)
class Solid:
    """One shape: ``kind`` box, cylinder (about local z) or ellipsoid, its axes the rows of ``axes``.

    ``label`` says what it is a part of, in the words of ``labels.SURFACES``.
    """

    kind: str
    centre: Array
    half: Array
    axes: Array
    paint: Paint
    gloss: float = 0.0
    emission: float = 0.0
    casts_shadow: bool = True
    label: str = ""

    @property
    def to_unit(self) -> Array:
        """The 3x3 map from world offsets to the unit shape."""
        return self.axes / self.half[:, None]

    @property
    def corners(self) -> Array:
        """The 8 world corners of the bounding box."""
        return (_CORNERS * self.half) @ self.axes + self.centre


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole: ``axes`` rows are right, down, forward; ``tangent`` is tan of half the field of view."""

    position: Array
    axes: Array
    tangent: float

    def rays(self, size: int) -> Array:
        """Ray directions, size x size x 3, with unit forward component."""
        grid = ((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1) * np.float32(self.tangent)
        x, y = np.meshgrid(grid, grid)
        return np.stack([x, y, np.ones_like(x)], axis=-1) @ self.axes


def intersect(kind: str, origin: Array, direction: Array) -> Array:
    """Ray parameter of the entry into the unit shape, ``FAR`` where it misses or starts inside."""
    direction = np.where(direction == 0, np.float32(1e-12), direction)  # 0 * inf would lose rays along an axis
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind == "box":
            return _slabs(origin, direction)
        if kind == "cylinder":
            near, far = _round(origin[..., :2], direction[..., :2])
            inverse = 1 / direction[..., 2]
            first, second = (-1 - origin[..., 2]) * inverse, (1 - origin[..., 2]) * inverse
            near = np.maximum(near, np.minimum(first, second))
            far = np.minimum(far, np.maximum(first, second))
        else:
            near, far = _round(origin, direction)
        return np.where((near < far) & (near > 1e-4), near, FAR)


def _slabs(origin: Array, direction: Array) -> Array:
    inverse = 1 / direction
    middle, reach = -origin * inverse, np.abs(inverse)
    near, far = middle - reach, middle + reach
    entry = np.maximum(np.maximum(near[..., 0], near[..., 1]), near[..., 2])
    leave = np.minimum(np.minimum(far[..., 0], far[..., 1]), far[..., 2])
    return np.where((entry < leave) & (entry > 1e-4), entry, FAR)


def _round(origin: Array, direction: Array) -> tuple[Array, Array]:
    a = np.einsum("...i,...i->...", direction, direction)
    b = np.einsum("...i,...i->...", direction, np.broadcast_to(origin, direction.shape))
    c = np.einsum("...i,...i->...", origin, origin) - 1
    discriminant = b * b - a * c
    root = np.sqrt(np.maximum(discriminant, 0))
    near = np.where(discriminant > 0, (-b - root) / a, FAR)
    return near, np.where(discriminant > 0, (-b + root) / a, -FAR)


def cast(camera: Camera, size: int, room: Array, solids: Sequence[Solid]) -> tuple[Array, NDArray[np.int32]]:
    """What each pixel sees: z-depth in metres (size x size) and the solid's index, -1 .. -6 for the shell.

    ``room`` is the extent of the shell, a box from the origin; its codes are -1 - 2 * axis - (far side).
    """
    rays = camera.rays(size)
    with np.errstate(divide="ignore", invalid="ignore"):
        away = rays > 0
        exits = (np.where(away, room, 0).astype(np.float32) - camera.position) / rays
    exits[~np.isfinite(exits)] = FAR
    axis = np.argmin(exits, axis=-1)
    depth = np.take_along_axis(exits, axis[..., None], -1)[..., 0]
    far_side = np.take_along_axis(away, axis[..., None], -1)[..., 0]
    seen = (-1 - 2 * axis - far_side).astype(np.int32)
    for index, solid in enumerate(solids):
        window = _screen_window(camera, size, solid)
        if window is None:
            continue
        matrix = solid.to_unit
        t = intersect(solid.kind, matrix @ (camera.position - solid.centre), rays[window] @ matrix.T)
        nearer = t < depth[window]
        depth[window][nearer] = t[nearer]
        seen[window][nearer] = index
    return depth, seen


def _screen_window(camera: Camera, size: int, solid: Solid) -> tuple[slice, slice] | None:
    x, y, z = ((solid.corners - camera.position) @ camera.axes.T).T
    if z.max() <= 0.01:
        return None
    if z.min() <= 0.01:
        return slice(0, size), slice(0, size)
    scale = size / (2 * camera.tangent)
    left, right = ((np.array([(x / z).min(), (x / z).max()])) * scale + size / 2).astype(float)
    top, bottom = ((np.array([(y / z).min(), (y / z).max()])) * scale + size / 2).astype(float)
    if right < 0 or bottom < 0 or left > size or top > size:
        return None
    return (
        slice(max(int(top), 0), min(int(bottom) + 2, size)),
        slice(max(int(left), 0), min(int(right) + 2, size)),
    )


def lit(points: Array, light: Array, lamp: Array, spread: float, solids: Sequence[Solid]) -> NDArray[np.bool_]:
    """Which of the Nx3 ``points`` see their Nx3 ``light`` samples, all within ``spread`` of ``lamp``."""
    visible = np.ones(len(points), bool)
    if not solids or not len(points):
        return visible
    centres = np.stack([solid.centre for solid in solids]) - lamp
    reaches = np.array([np.linalg.norm(solid.half) + spread for solid in solids], np.float32)
    distances = np.linalg.norm(centres, axis=1)
    cosines = np.where(
        distances > reaches, np.sqrt(np.maximum(1 - (reaches / np.maximum(distances, 1e-6)) ** 2, 0)), -2.0
    )
    towards = np.ascontiguousarray((points - lamp).T)
    length = np.sqrt(np.einsum("ij,ij->j", towards, towards))
    aligned = (centres / np.maximum(distances, 1e-6)[:, None]).astype(np.float32) @ towards
    for index, solid in enumerate(solids):
        within = aligned[index] > length * np.float32(cosines[index])
        within &= length > np.float32(distances[index] - reaches[index])
        rows = np.flatnonzero(within & visible)
        if not len(rows):
            continue
        matrix = solid.to_unit
        origin = (points[rows] - solid.centre) @ matrix.T
        direction = (light[rows] - points[rows]) @ matrix.T
        visible[rows[intersect(solid.kind, origin, direction) < 1]] = False
    return visible


def surface(solid: Solid, points: Array) -> tuple[Array, Array, Array]:
    """World normals (Nx3) and texture coordinates u, v in metres of ``points`` on the solid."""
    local = (points - solid.centre) @ solid.axes.T
    unit = local / solid.half
    if solid.kind == "box":
        axis = np.argmax(np.abs(unit), axis=1)
        rows = np.arange(len(points))
        normal = np.zeros_like(unit)
        normal[rows, axis] = np.sign(unit[rows, axis])
        u = np.where(axis == 0, local[:, 1], local[:, 0])
        v = np.where(axis == 2, local[:, 1], local[:, 2])
        return normal @ solid.axes, u, v
    angle = np.arctan2(unit[:, 1], unit[:, 0])
    normal = unit / solid.half
    if solid.kind == "cylinder":
        cap = np.abs(unit[:, 2]) > 0.9995
        normal[:, 2] = 0
        normal[cap] = [0, 0, 1]
        normal[cap, 2] = np.sign(unit[cap, 2])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return normal @ solid.axes, angle * solid.half[0], local[:, 2]
