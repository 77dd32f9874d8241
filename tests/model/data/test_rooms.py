"""The rendered rooms: exact depth, honest shadows, the same pictures for ever."""

import sys

import numpy as np
import pytest
from PIL import Image

from model.data.rooms import render as rooms
from model.data.rooms.camera import look_towards, stand
from model.data.rooms.furniture import AGAINST_WALL
from model.data.rooms.parts import place, solid
from model.data.rooms.raytrace import FAR, Camera, cast, intersect, lit
from model.data.rooms.scene import make_scene
from model.data.rooms.shading import clean_depth
from model.data.rooms.textures import plain

ROOM = np.array([4.0, 6.0, 2.5], np.float32)
GREY = plain(np.random.default_rng(0), np.full(3, 0.5, np.float32))


def camera(yaw=0.0, pitch=0.0, roll=0.0, position=(1.0, 3.0, 1.2)):
    return Camera(np.array(position, np.float32), look_towards(yaw, pitch, roll), 0.45)


@pytest.fixture(scope="module")
def frames():
    return [frame for number in range(6) for frame in rooms.render_scene("train", number, 64)]


def test_a_wall_seen_head_on_has_one_z_depth_and_not_the_length_of_the_ray():
    depth, seen = cast(camera(), 32, ROOM, ())
    wall = seen == -1 - 1
    assert wall[10:20, 10:20].all()
    np.testing.assert_allclose(depth[wall], 3.0, rtol=1e-5)


@pytest.mark.parametrize(("yaw", "pitch", "roll"), [(0.4, -0.3, 0.0), (2.0, 0.2, 0.05), (4.4, -0.6, -0.2)])
def test_every_ray_ends_on_the_shell_of_an_empty_room(yaw, pitch, roll):
    view = camera(yaw, pitch, roll)
    depth, seen = cast(view, 24, ROOM, ())
    points = view.rays(24) * depth[..., None] + view.position
    for axis in range(3):
        for far in (0, 1):
            on_side = points[seen == -1 - 2 * axis - far]
            np.testing.assert_allclose(on_side[:, axis], far * ROOM[axis], atol=1e-4)
    assert (points > -1e-4).all()
    assert (points < ROOM + 1e-4).all()


@pytest.mark.parametrize(
    ("kind", "yaw", "expected"),
    [
        ("box", 0.0, 1.75),
        ("box", np.pi / 4, 2.0 - 0.25 * np.sqrt(2)),
        ("cylinder", 0.3, 1.75),
        ("ellipsoid", 1.0, 1.75),
    ],
)
def test_the_nearest_point_of_a_solid_is_at_its_geometric_distance(kind, yaw, expected):
    thing = solid(kind, (3.0, 3.0, 0.95), (0.5, 0.5, 0.5), GREY, yaw=yaw)
    depth, seen = cast(camera(), 255, ROOM, [thing])
    assert depth[127, 127] == pytest.approx(expected, abs=2e-3)
    assert seen[127, 127] == 0
    assert seen[127, 10] < 0


def test_a_tall_box_hides_what_is_behind_it_whatever_the_order():
    near, far = (solid("box", (x, 3.0, 0.0), (0.3, 0.3, 2.0), GREY) for x in (2.0, 3.0))
    for order, index in (((near, far), 0), ((far, near), 1)):
        depth, seen = cast(camera(), 33, ROOM, order)
        assert seen[16, 16] == index
        assert depth[16, 16] == pytest.approx(0.85, abs=1e-4)


def test_looking_only_where_a_solid_can_appear_changes_nothing():
    scene = make_scene(np.random.default_rng(5))
    view = stand(np.random.default_rng(6), scene)
    depth, _ = cast(view, 48, scene.room, scene.solids)
    rays = view.rays(48)
    every = cast(view, 48, scene.room, ())[0]
    for thing in scene.solids:
        matrix = thing.to_unit
        every = np.minimum(every, intersect(thing.kind, matrix @ (view.position - thing.centre), rays @ matrix.T))
    np.testing.assert_allclose(depth, every, rtol=1e-5)


def test_culling_of_shadow_casters_changes_no_shadow():
    scene = make_scene(np.random.default_rng(7))
    casters = [thing for thing in scene.solids if thing.casts_shadow]
    points = np.random.default_rng(8).uniform(0.05, scene.room - 0.05, (3000, 3)).astype(np.float32)
    lamp = scene.lights[0].position
    lights = np.broadcast_to(lamp, points.shape)
    expected = np.ones(len(points), bool)
    for thing in casters:
        matrix = thing.to_unit
        expected &= intersect(thing.kind, (points - thing.centre) @ matrix.T, (lights - points) @ matrix.T) >= 1
    seen = lit(points, lights, lamp, 0.0, casters)
    assert 0.05 < expected.mean() < 1
    assert (seen != expected).mean() < 1e-3


def test_a_point_behind_a_box_is_in_shadow_and_one_beside_it_is_not():
    blocker = solid("box", (2.0, 3.0, 1.0), (0.5, 0.5, 0.05), GREY)
    lamp = np.array([2.0, 3.0, 2.4], np.float32)
    points = np.array([[2.0, 3.0, 0.0], [0.5, 3.0, 0.0]], np.float32)
    assert lit(points, np.stack([lamp, lamp]), lamp, 0.1, [blocker]).tolist() == [False, True]


def test_a_ray_beside_a_shape_misses_it():
    origin = np.array([0.0, 0.0, -5.0], np.float32)
    direction = np.array([[0.0, 0.0, 1.0], [0.3, 0.0, 1.0]], np.float32)
    for kind in ("box", "cylinder", "ellipsoid"):
        hit, miss = intersect(kind, origin, direction)
        assert hit == pytest.approx(4.0)
        assert miss == FAR


def test_what_lies_behind_a_ray_or_around_its_start_is_not_hit():
    away = np.array([[0.1, 0.2, 1.0]], np.float32)
    for kind in ("box", "cylinder", "ellipsoid"):
        for height in (5.0, 0.0):
            assert intersect(kind, np.array([0.0, 0.0, height], np.float32), away) == FAR


def test_small_depth_invents_no_value_between_two_sides_of_an_edge():
    depth = np.full((8, 8), 2.0, np.float32)
    depth[:, 5:] = 4.0
    depth[:, 2] = 4.0
    assert set(clean_depth(depth).ravel()) == {2.0, 4.0}


def test_small_depth_of_a_slanted_plane_is_the_mean_of_its_block():
    depth = np.add.outer(np.arange(8) * 0.01, np.arange(8) * 0.005).astype(np.float32) + 3
    expected = depth.reshape(2, 4, 2, 4).mean((1, 3))
    np.testing.assert_allclose(clean_depth(depth), expected, rtol=1e-6)


def test_a_picture_does_not_depend_on_how_many_are_asked_for():
    few, more = list(rooms.render_split("test", 3, 32)), list(rooms.render_split("test", 6, 32))
    for index, (one, other) in enumerate(zip(few, more[:3], strict=True)):
        alone = rooms.render_frame("test", index, 32)
        for again in (other, alone):
            assert np.array_equal(one.image, again.image)
            assert np.array_equal(one.depth_m, again.depth_m)
            assert one.source == again.source
    assert len(more) == 6


def test_worker_processes_render_the_same_pictures_in_the_same_order(monkeypatch, tmp_path):
    (tmp_path / "main.py").touch()
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "main.py"), raising=False)  # xdist has none
    monkeypatch.setattr(rooms.os, "sched_getaffinity", lambda _: {0, 1})
    started = []
    spawned = rooms._spawned
    monkeypatch.setattr(rooms, "_spawned", lambda jobs, workers: started.append(workers) or spawned(jobs, workers))
    together = list(rooms.render_split("val", 49, 32))
    assert started == [2]
    assert len(together) == 49
    for index in (0, 17, 48):
        assert np.array_equal(together[index].image, rooms.render_frame("val", index, 32).image)


def test_splits_seeds_and_views_give_different_pictures():
    pictures = [
        rooms.render_frame("train", 0, 32),
        rooms.render_frame("val", 0, 32),
        rooms.render_frame("test", 0, 32),
        rooms.render_frame("train", 1, 32),
        rooms.render_frame("train", 0, 32, seed=99),
    ]
    assert len({frame.image.tobytes() for frame in pictures}) == len(pictures)
    assert len({frame.depth_m.tobytes() for frame in pictures}) == len(pictures)


def test_scenes_belong_to_one_split_and_hold_four_views(frames):
    assert len(frames) == 24
    assert len({frame.scene for frame in frames}) == 6
    assert all(frame.scene.startswith("train/") for frame in frames)


def test_pictures_are_well_exposed_and_depth_is_that_of_rooms(frames):
    images, depth = np.stack([f.image for f in frames]), np.stack([f.depth_m for f in frames])
    assert images.shape == (24, 3, 64, 64)
    assert images.dtype == np.uint8
    assert depth.shape == (24, 16, 16)
    assert depth.dtype == np.float32
    assert 90 < images.mean() < 190
    assert min(image.std() for image in images) > 12
    assert depth.min() > 0.4
    assert depth.max() <= 10
    assert 2 < np.median(depth) < 4.5


def test_depth_can_be_learnt_from_the_place_in_the_picture_as_in_real_rooms(frames):
    depth = np.stack([frame.depth_m for frame in frames])
    assert depth[:, -1].mean() < 0.75 * depth[:, 6].mean()


def test_edges_of_depth_are_edges_of_the_picture(frames):
    """At strong depth steps colour changes more than elsewhere, so picture and depth are of one view."""
    on, off = [], []
    for frame in frames:
        grey = frame.image.mean(0).reshape(16, 4, 16, 4).mean((1, 3))
        colour_step, depth_step = np.abs(np.diff(grey, axis=1)), np.abs(np.diff(frame.depth_m, axis=1))
        on.append(colour_step[depth_step > 0.4])
        off.append(colour_step[depth_step < 0.1])
    assert np.concatenate(on).mean() > 1.5 * np.concatenate(off).mean()


def test_furniture_stays_in_the_room_and_pieces_do_not_run_into_each_other():
    for number in range(30):
        scene = make_scene(np.random.default_rng([3, number]))
        spots = scene.footprints
        for index, spot in enumerate(spots):
            assert spot.reach[0] - 1e-3 <= spot.x <= scene.room[0] - spot.reach[0] + 1e-3
            assert spot.reach[1] - 1e-3 <= spot.y <= scene.room[1] - spot.reach[1] + 1e-3
            for other in spots[index + 1 :]:
                if min(spot.clearance, other.clearance) > 0.3:
                    continue  # a chair is pushed below its table
                apart_x = abs(spot.x - other.x) - spot.reach[0] - other.reach[0]
                apart_y = abs(spot.y - other.y) - spot.reach[1] - other.reach[1]
                assert max(apart_x, apart_y) > -1e-3


def test_every_piece_stands_on_the_floor_within_its_footprint():
    rng = np.random.default_rng(11)
    for make in {make for kinds in AGAINST_WALL.values() for make in kinds}:
        piece = make(rng)
        corners = np.concatenate([thing.corners for thing in piece.solids])
        assert -1e-4 < corners[:, 2].min() < 0.35
        assert corners[:, 2].max() < 2.3
        assert np.abs(corners[:, 1]).max() < piece.half_y + 0.25


def test_turning_a_piece_keeps_its_solids_together():
    pair = (solid("box", (1, 0, 0), (1, 1, 1), GREY), solid("box", (0, 2, 0), (1, 1, 1), GREY))
    moved = place(pair, 5.0, 6.0, np.pi / 2)
    np.testing.assert_allclose(moved[0].centre, [5, 7, 0.5], atol=1e-6)
    np.testing.assert_allclose(moved[1].centre, [3, 6, 0.5], atol=1e-6)


def test_the_camera_is_held_by_a_person_who_stands_free():
    for number in range(25):
        scene = make_scene(np.random.default_rng([4, number]))
        view = stand(np.random.default_rng([5, number]), scene)
        assert 0.8 <= view.position[2] <= 1.9
        assert (view.position[:2] > 0.25).all()
        assert (view.position[:2] < scene.room[:2] - 0.25).all()
        np.testing.assert_allclose(view.axes @ view.axes.T, np.eye(3), atol=1e-5)
        assert np.linalg.det(view.axes) == pytest.approx(1, abs=1e-5)
        assert view.axes[1, 2] < -0.5  # the picture's down is the room's down


def test_the_contact_sheet_shows_pictures_above_their_depth(tmp_path):
    rooms.contact_sheet(tmp_path / "sheet.png", columns=3, rows=2, size=32)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (3 * 38, 2 * 2 * 38)
        pixels = np.asarray(sheet)
    assert np.array_equal(pixels[:32, :32], rooms.render_frame("test", 0, 32).image.transpose(1, 2, 0))
