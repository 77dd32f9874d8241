import pickle

import numpy as np
import pytest

from model.data.rooms import labels
from model.data.rooms.camera import stand
from model.data.rooms.labels import FURNITURE, SURFACES, LabelledFrame, RoomsDataset, labelled_frame, surface_mask
from model.data.rooms.parts import labelled, solid
from model.data.rooms.raytrace import cast
from model.data.rooms.render import SEED, VIEWS_PER_SCENE, draw_scene, render_frame
from model.data.rooms.scene import make_scene
from model.data.rooms.textures import plain

GREY = plain(np.random.default_rng(0), np.full(3, 0.5, np.float32))
SIZE = 48


@pytest.fixture(scope="module")
def frames():
    return [labelled_frame("train", number * VIEWS_PER_SCENE + number % VIEWS_PER_SCENE, SIZE) for number in range(40)]


@pytest.fixture(scope="module")
def scenes():
    return [make_scene(np.random.default_rng([6, number])) for number in range(40)]


def test_labels_come_with_the_same_picture_and_depth():
    for split, index in (("train", 0), ("train", 5), ("val", 3), ("test", 10)):
        ours, plain_frame = labelled_frame(split, index, SIZE).frame, render_frame(split, index, SIZE)
        assert ours.image.tobytes() == plain_frame.image.tobytes()
        assert ours.depth_m.tobytes() == plain_frame.depth_m.tobytes()
        assert (ours.scene, ours.source) == (plain_frame.scene, plain_frame.source)


def test_labels_depend_on_the_arguments_and_not_on_what_was_read_before():
    first = labelled_frame("val", 2, SIZE)
    labelled_frame("test", 9, SIZE)
    labelled_frame("val", 1, SIZE, seed=99)
    again = labelled_frame("val", 2, SIZE)
    assert first.mask.tobytes() == again.mask.tobytes()
    assert first.frame.image.tobytes() == again.frame.image.tobytes()
    assert labelled_frame("val", 2, SIZE, seed=99).mask.tobytes() != again.mask.tobytes()


def test_a_mask_says_what_the_ray_through_each_pixels_centre_hits():
    frame, scene = labelled_frame("train", 7, SIZE), draw_scene("train", 1)
    view = stand(np.random.default_rng([SEED, 0, 1, 4]), scene)
    depth, seen = cast(view, SIZE, scene.room, scene.solids)
    heights = (view.rays(SIZE) * depth[..., None] + view.position)[..., 2]
    for surface, side in (("floor", -5), ("ceiling", -6)):
        assert (frame.mask[seen == side] == SURFACES.index(surface)).all()
    assert (frame.mask[(seen >= -4) & (seen < 0)] == SURFACES.index("wall")).all()
    for index in np.unique(seen[seen >= 0]):
        assert (frame.mask[seen == index] == SURFACES.index(scene.solids[index].label)).all()
    assert heights[frame.mask == SURFACES.index("floor")].max() < 0.02, "a rug is as thin as that"


def test_every_surface_is_seen_and_shell_and_furniture_have_sensible_shares(frames):
    masks = np.stack([frame.mask for frame in frames])
    assert masks.shape == (40, SIZE, SIZE)
    assert masks.dtype == np.uint8
    share = dict(zip(SURFACES, np.bincount(masks.ravel(), minlength=len(SURFACES)) / masks.size, strict=True))
    assert all(share[surface] > 0.005 for surface in SURFACES)
    assert 0.2 < share["wall"] < 0.5
    assert 0.1 < share["floor"] < 0.35
    assert share["other"] < 0.06, "else a surface lacks a name of its own"
    assert sum(share[one] for one in ("seat", "table", "storage", "bed")) > 0.15


def test_the_floor_is_below_and_the_ceiling_above(frames):
    masks = np.stack([frame.mask for frame in frames])
    rows = {surface: np.nonzero(masks == SURFACES.index(surface))[1] for surface in ("floor", "wall", "ceiling")}
    assert rows["ceiling"].mean() < 0.2 * SIZE
    assert 0.25 * SIZE < rows["wall"].mean() < 0.5 * SIZE
    assert rows["floor"].mean() > 0.65 * SIZE


def test_edges_of_the_mask_are_edges_of_the_picture(frames):
    on, off = [], []
    for frame in frames:
        step = np.abs(np.diff(frame.frame.image.astype(float).mean(0), axis=1))
        edge = np.diff(frame.mask.astype(int), axis=1) != 0
        on.append(step[edge])
        off.append(step[~edge])
    assert np.concatenate(on).mean() > 2 * np.concatenate(off).mean()


def test_the_main_furniture_is_what_most_pixels_show_and_each_kind_is_that_often(frames):
    shares = np.array([[(frame.mask == SURFACES.index(name)).mean() for name in FURNITURE] for frame in frames])
    found = np.array([frame.main_furniture for frame in frames])
    assert (shares[range(len(frames)), found] == shares.max(axis=1)).all()
    assert np.bincount(found, minlength=len(FURNITURE)).min() >= 3


def test_a_picture_without_furniture_counts_as_the_first_kind(frames):
    bare = LabelledFrame(frames[0].frame, np.zeros_like(frames[0].mask))
    assert bare.main_furniture == 0


def test_every_solid_of_a_room_has_a_label(scenes):
    assert {thing.label for scene in scenes for thing in scene.solids} <= set(SURFACES)


def test_a_solid_without_a_label_is_refused():
    scene = make_scene(np.random.default_rng(1))
    nameless = type(scene)(**{**vars(scene), "solids": (*scene.solids, solid("box", (1, 1, 0), (1, 1, 1), GREY))})
    with pytest.raises(ValueError):
        surface_mask(nameless, np.full((4, 4), -1, np.int32))


def test_what_stands_on_a_table_keeps_its_own_label():
    cup, board = solid("box", (0, 0, 1), (1, 1, 1), GREY, label="other"), solid("box", (0, 0, 0), (1, 1, 1), GREY)
    assert [one.label for one in labelled("table", (cup, board))] == ["other", "table"]


def test_a_data_set_has_the_labelled_pictures_of_its_split_in_order():
    data = RoomsDataset("val", 6, 32)
    items = list(data)
    assert len(items) == len(data) == 6
    for index, item in enumerate(items):
        alone = labelled_frame("val", index, 32)
        assert item.frame.source == alone.frame.source
        assert item.mask.tobytes() == alone.mask.tobytes()
    assert data[-1].frame.source == items[5].frame.source
    with pytest.raises(IndexError):
        data[6]


def test_reading_in_order_draws_each_scene_once_and_workers_can_be_given_the_data_set():
    labels._scene.cache_clear()
    list(pickle.loads(pickle.dumps(RoomsDataset("val", 3 * VIEWS_PER_SCENE, 16))))
    assert labels._scene.cache_info().misses == 3
