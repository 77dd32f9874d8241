"""Where a person with a hand-held camera would stand in a room, and look."""

import numpy as np

from model.data.rooms.raytrace import Array, Camera, cast
from model.data.rooms.scene import Scene

Generator = np.random.Generator


def stand(rng: Generator, scene: Scene) -> Camera:
    """A hand-held camera 0.8 to 1.9 m up, clear of furniture, looking across the room (best of a few)."""
    best, camera, tried = 0.0, None, 0
    for _ in range(60):
        spot = rng.uniform(0.3, scene.room[:2] - 0.3)
        height, away = rng.uniform(0.8, 1.9), rng.uniform(0.2, scene.room[:2] - 0.2)
        tangent = np.tan(np.radians(rng.uniform(48, 54) / 2))
        if any(
            abs(spot[0] - f.x) < f.reach[0] + 0.3 and abs(spot[1] - f.y) < f.reach[1] + 0.3 for f in scene.footprints
        ):
            continue
        if tried >= 6 and camera is not None:
            break
        tried += 1
        yaw = np.arctan2(away[1] - spot[1], away[0] - spot[0])
        pitch, roll = np.radians(rng.normal(-12, 8)), np.radians(rng.normal(0, 2.0))
        candidate = Camera(np.array([*spot, height], np.float32), look_towards(yaw, pitch, roll), float(tangent))
        depth, _ = cast(candidate, 24, scene.room, scene.solids)
        score = float(depth.mean() + 1.5 * depth.std()) if depth.min() > 0.5 and depth.max() < 9.5 else 0.0
        score *= rng.uniform(0.7, 1.0)
        if score > best:
            best, camera = score, candidate
    if camera is None:
        middle = np.array([scene.room[0] / 2, scene.room[1] / 2, 1.85], np.float32)
        camera = Camera(middle, look_towards(rng.uniform(0, 6.28), -0.2, 0.0), 0.47)
    return camera


def look_towards(yaw: float, pitch: float, roll: float) -> Array:
    """Camera axes (rows right, down, forward) for angles in radians; a positive pitch looks up."""
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    down = np.cross(forward, right)
    turned = np.cos(roll) * right + np.sin(roll) * down
    return np.stack([turned, np.cross(forward, turned), forward]).astype(np.float32)
