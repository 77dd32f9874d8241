"""NYUv2 in its three layouts: the same picture in, whatever the layout; split by place."""

import json

import numpy as np
import pytest
from PIL import Image

from model.data.nyu import list_frames
from model.data.nyu_frames import shrink_depth
from model.data.pack import Pack, prepare_pack
from tests.model.data.nyu_files import (
    HEIGHT,
    SPEC,
    WIDTH,
    fastdepth,
    kaggle,
    matlab,
    metres,
    packed,
    picture,
    read_rows,
    save_depth,
    write_rows,
)
from tests.model.data.pack_files import sources


def test_all_layouts_give_the_same_picture_the_same_way_up(tmp_path):
    packs = [
        packed(kaggle(tmp_path / "kaggle"), tmp_path),
        packed(matlab(tmp_path / "labelled.mat"), tmp_path),
        packed(fastdepth(tmp_path / "fast"), tmp_path),
    ]
    assert [pack.origin for pack in packs] == ["nyu-csv", "nyu-mat", "nyu-fastdepth"]
    for pack in packs:
        image, depth = pack.images("test")[0].float(), pack.targets("test")[0, 0] * 10
        assert image[0, 16, 30] > image[0, 16, 2] + 180  # red to the right
        assert image[1, 30, 16] > image[1, 2, 16] + 150  # green downwards
        assert image[2, 2, 2] > 150  # blue top left
        assert image[2, 2, 30] < 20
        assert image[2, 30, 2] < 20
        assert depth[7, 4] > depth[0, 4] + 4
        assert 0.5 < depth[4, 7] - depth[4, 0] < 1.2


def test_8_bit_depth_is_10_metres_at_255_and_16_bit_depth_is_millimetres(tmp_path):
    pack = packed(kaggle(tmp_path / "kaggle", scenes=(("a_0001_out", 3),)), tmp_path)
    expected = shrink_depth(metres(0), 8)
    np.testing.assert_allclose(pack.targets("test")[0, 0] * 10, expected, atol=0.002)
    np.testing.assert_allclose(pack.targets("train")[0, 0] * 10, shrink_depth(metres(1), 8), atol=0.03)


def test_depth_beyond_10_metres_is_clipped_and_never_wraps(tmp_path):
    root = kaggle(tmp_path / "kaggle")
    save_depth(root / "data/nyu2_test/00000_depth.png", np.full((HEIGHT, WIDTH), 25.7), 16)
    depth = packed(root, tmp_path).targets("test")[0]
    assert (depth == 1).all()


def test_small_depth_is_the_mean_of_the_area():
    depth = np.random.default_rng(0).uniform(1, 9, (HEIGHT, WIDTH)).astype(np.float32)
    np.testing.assert_allclose(shrink_depth(depth, 16), depth.reshape(16, 3, 16, 4).mean((1, 3)), rtol=1e-5)
    ramp = np.tile(np.linspace(0.5, 479.5, 480, dtype=np.float32)[:, None] / 100, (1, 640))
    expected = (np.arange(56) + 0.5) * 480 / 56 / 100
    np.testing.assert_allclose(shrink_depth(ramp, 56), np.tile(expected[:, None], (1, 56)), atol=2e-4)


@pytest.mark.parametrize("hole", [0.0, np.nan, -1.0, np.inf])
def test_missing_depth_is_left_out_of_the_mean_and_holes_take_the_nearest_depth(hole):
    depth = np.full((48, 64), 3.0, np.float32)
    depth[:, 32:] = 5.0
    depth[10:14, :] = hole  # thinner than a target pixel
    depth[30:48, 0:16] = hole  # wider than some
    small = shrink_depth(depth, 8)
    np.testing.assert_allclose(small[:, :4], 3, rtol=1e-6)
    np.testing.assert_allclose(small[:, 4:], 5, rtol=1e-6)


def test_the_two_parts_of_one_place_never_stand_in_two_splits(tmp_path):
    for number, share in enumerate((0.1, 0.4, 0.6)):
        scenes = [(f"room_{n:04d}{part}_out", 2) for n in range(6) for part in "abc"]
        listing = list_frames(kaggle(tmp_path / str(number), scenes=scenes), share, False)
        places = {split: {e.image.parent.name[:9] for e in listing.frames[split]} for split in ("train", "val")}
        assert places["train"]
        assert places["val"]
        assert not places["train"] & places["val"]
        assert len(listing.frames["val"]) == pytest.approx(share * 36, abs=6)
        assert listing.detail["split"] == "by place"


def test_one_place_only_is_split_in_the_order_of_its_frames_and_said(tmp_path):
    root, said = kaggle(tmp_path / "kaggle", scenes=(("kitchen_0001_out", 20),)), []
    rows = read_rows(root, "train")
    write_rows(root, "train", rows[::-1])
    path = prepare_pack(str(root), tmp_path / "packs", SPEC, lambda done, total, text: said.append(text))
    pack = Pack(path)
    assert [name.split("/")[-1] for name in sources(pack, "val")] == ["19.png.jpg", "20.png.jpg"]
    assert pack.size("train") == 18
    assert "one place only" in said[0]
    assert "one place only" in json.loads(pack.attributes["origin_detail"])["note"]


def test_the_test_split_is_that_of_the_data(tmp_path):
    listing = list_frames(kaggle(tmp_path / "kaggle"), 0.1, False)
    assert [entry.name for entry in listing.frames["test"]] == [
        row[0] for row in read_rows(tmp_path / "kaggle", "test")
    ]
    listing = list_frames(fastdepth(tmp_path / "fast"), 0.1, False)
    assert {entry.name for entry in listing.frames["test"]} == {
        "val/official/00000.h5",
        "val/official/00001.h5",
    }
    assert {entry.scene for entry in listing.frames["train"] + listing.frames["val"]} == {
        "kitchen_0001",
        "study_0003",
    }


def test_the_labelled_file_is_split_by_its_scenes_where_it_names_them(tmp_path):
    scenes = [f"den_{n // 2:04d}" for n in range(20)]
    listing = list_frames(matlab(tmp_path / "a.mat", 20, scenes), 0.1, False)
    of = {split: {entry.scene for entry in listing.frames[split]} for split in ("train", "val", "test")}
    assert {split: len(entries) for split, entries in listing.frames.items()} == {
        "train": 14,
        "val": 2,
        "test": 4,
    }
    assert len(of["train"] | of["val"] | of["test"]) == sum(map(len, of.values()))


def test_the_labelled_file_without_scenes_is_split_70_10_20_in_the_order_of_its_frames(tmp_path):
    listing = list_frames(matlab(tmp_path / "a.mat", 20), 0.1, False)
    numbers = [entry.number for split in ("train", "val", "test") for entry in listing.frames[split]]
    assert numbers == list(range(20))
    assert [len(listing.frames[split]) for split in ("train", "val", "test")] == [14, 2, 4]


def test_a_changed_file_makes_another_pack(tmp_path):
    root = kaggle(tmp_path / "kaggle")
    before = packed(root, tmp_path)
    assert packed(root, tmp_path).path == before.path
    Image.fromarray(255 - picture()).save(root / "data/nyu2_test/00000_colors.png")
    after = packed(root, tmp_path)
    assert after.path != before.path
    assert after.fingerprint != before.fingerprint


def test_a_copy_of_the_data_elsewhere_has_the_same_fingerprint(tmp_path):
    one, two = packed(kaggle(tmp_path / "one"), tmp_path), packed(kaggle(tmp_path / "two"), tmp_path)
    assert one.fingerprint == two.fingerprint


def test_the_folder_data_itself_may_be_named(tmp_path):
    root = kaggle(tmp_path / "kaggle")
    assert list_frames(root / "data", 0.1, False).frames == list_frames(root, 0.1, False).frames
