"""NYUv2 in its three layouts: the same picture in, whatever the layout; what is broken is named."""

import csv
import os

import h5py
import numpy as np
import pytest
from PIL import Image

from model.errors import InputError
from model.nyu import list_frames
from model.nyu_frames import shrink_depth
from model.pack import Pack, PackSpec, prepare_pack

SPEC = PackSpec(input_size=32)
HEIGHT, WIDTH = 48, 64


def picture(number=0):
    """Red grows to the right, green downwards, and a blue corner top left: no flip or turn keeps it."""
    colour = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    colour[..., 0] = np.linspace(0, 255, WIDTH)[None]
    colour[..., 1] = np.linspace(0, 200, HEIGHT)[:, None]
    colour[:12, :16, 2] = 200 + number
    return colour


def metres(number=0):
    """Depth that grows downwards, and less to the right."""
    return (1 + np.linspace(0, 6, HEIGHT)[:, None] + np.linspace(0, 1, WIDTH)[None] + 0.01 * number).astype(np.float32)


def save_depth(path, depth_m, bits):
    if bits == 8:
        Image.fromarray(np.rint(depth_m / 10 * 255).astype(np.uint8)).save(path)
    else:
        Image.fromarray(np.rint(depth_m * 1000).astype(np.uint16)).save(path)


def kaggle(root, scenes=(("kitchen_0001_out", 5), ("office_0002a_out", 5), ("office_0002b_out", 5)), tests=2):
    lists = {"train": [], "test": []}
    for scene, count in scenes:
        folder = root / "data" / "nyu2_train" / scene
        folder.mkdir(parents=True)
        for number in range(1, count + 1):
            Image.fromarray(picture(number)).save(folder / f"{number}.png.jpg", quality=98)
            save_depth(folder / f"{number}.png", metres(number), 8)
            name = f"data/nyu2_train/{scene}/{number}"
            lists["train"].append([f"{name}.png.jpg", f"{name}.png"])
    folder = root / "data" / "nyu2_test"
    folder.mkdir(parents=True)
    for number in range(tests):
        Image.fromarray(picture(number)).save(folder / f"{number:05d}_colors.png")
        save_depth(folder / f"{number:05d}_depth.png", metres(number), 16)
        lists["test"].append([f"data/nyu2_test/{number:05d}_{kind}.png" for kind in ("colors", "depth")])
    for split, rows in lists.items():
        write_rows(root, split, rows)
    return root


def list_file(root, split):
    return root / "data" / f"nyu2_{split}.csv"


def read_rows(root, split):
    with open(list_file(root, split), newline="") as file:
        return list(csv.reader(file))


def write_rows(root, split, rows):
    with open(list_file(root, split), "w", newline="") as file:
        csv.writer(file).writerows(rows)


def fastdepth(root, scenes=(("kitchen_0001a", 2), ("kitchen_0001b", 2), ("study_0003", 3))):
    for folder, count in [(f"train/{name}", count) for name, count in scenes] + [("val/official", 2)]:
        (root / folder).mkdir(parents=True)
        for number in range(count):
            with h5py.File(root / folder / f"{number:05d}.h5", "w") as file:
                file["rgb"] = picture(number).transpose(2, 0, 1)
                file["depth"] = metres(number)
    return root


def matlab(path, count=6, scenes=None):
    with h5py.File(path, "w") as file:
        file["images"] = np.stack([picture(n).transpose(2, 1, 0) for n in range(count)])
        file["depths"] = np.stack([metres(n).T for n in range(count)])
        if scenes:
            names = [file.create_dataset(f"#refs#/{n}", data=np.array([[ord(c)] for c in s], np.uint16))
                     for n, s in enumerate(scenes)]  # fmt: skip
            file["scenes"] = np.array([[name.ref for name in names]], dtype=h5py.ref_dtype)
    return path


def packed(data, tmp_path, spec=SPEC):
    return Pack(prepare_pack(str(data), tmp_path / "packs", spec))


def test_all_layouts_give_the_same_picture_the_same_way_up(tmp_path):
    packs = [
        packed(kaggle(tmp_path / "kaggle"), tmp_path),
        packed(matlab(tmp_path / "labelled.mat"), tmp_path),
        packed(fastdepth(tmp_path / "fast"), tmp_path),
    ]
    assert [pack.origin for pack in packs] == ["nyu-csv", "nyu-mat", "nyu-fastdepth"]
    for pack in packs:
        image, depth = pack.images("test")[0].float(), pack.depth("test")[0, 0] * 10
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
    np.testing.assert_allclose(pack.depth("test")[0, 0] * 10, expected, atol=0.002)
    np.testing.assert_allclose(pack.depth("train")[0, 0] * 10, shrink_depth(metres(1), 8), atol=0.03)


def test_depth_beyond_10_metres_is_clipped_and_never_wraps(tmp_path):
    root = kaggle(tmp_path / "kaggle")
    save_depth(root / "data/nyu2_test/00000_depth.png", np.full((HEIGHT, WIDTH), 25.7), 16)
    depth = packed(root, tmp_path).depth("test")[0]
    assert (depth == 1).all()


def test_small_depth_is_the_mean_of_the_area():
    depth = np.random.default_rng(0).uniform(1, 9, (HEIGHT, WIDTH)).astype(np.float32)
    np.testing.assert_allclose(shrink_depth(depth, 16), depth.reshape(16, 3, 16, 4).mean((1, 3)), rtol=1e-5)
    ramp = np.tile(np.linspace(0.5, 479.5, 480, dtype=np.float32)[:, None] / 100, (1, 640))
    expected = (np.arange(56) + 0.5) * 480 / 56 / 100
    np.testing.assert_allclose(shrink_depth(ramp, 56), np.tile(expected[:, None], (1, 56)), rtol=1e-4)


@pytest.mark.parametrize("hole", [0.0, np.nan, -1.0, np.inf])
def test_missing_depth_is_left_out_of_the_mean_and_holes_take_the_nearest_depth(hole):
    depth = np.full((48, 64), 3.0, np.float32)
    depth[:, 32:] = 5.0
    depth[10:14, :] = hole  # thinner than a target pixel
    depth[30:48, 0:16] = hole  # wider than some
    small = shrink_depth(depth, 8)
    np.testing.assert_allclose(small[:, :4], 3)
    np.testing.assert_allclose(small[:, 4:], 5)


def test_a_frame_almost_without_depth_is_bad(tmp_path):
    root = kaggle(tmp_path / "kaggle")
    depth = np.zeros((HEIGHT, WIDTH))
    depth[0, :20] = 2
    save_depth(root / "data/nyu2_test/00001_depth.png", depth, 16)
    with pytest.raises(InputError, match=r"nyu2_test.csv row 2: .*99% of its pixels"):
        packed(root, tmp_path)


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
    assert [name.split("/")[-1] for name in pack.sources("val")] == ["19.png.jpg", "20.png.jpg"]
    assert pack.size("train") == 18
    assert "one place only" in said[0]
    assert "one place only" in pack.origin_detail["note"]


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


def remove_file(root):
    os.remove(root / "data/nyu2_train/kitchen_0001_out/3.png")


def truncate_file(root):
    path = root / "data/nyu2_train/kitchen_0001_out/3.png.jpg"
    path.write_bytes(path.read_bytes()[:900])


def not_a_picture(root):
    (root / "data/nyu2_train/kitchen_0001_out/3.png.jpg").write_text("hello")


def change_row(root, change):
    rows = read_rows(root, "train")
    rows[2] = change(rows[2])
    write_rows(root, "train", rows)


def other_size(root):
    save_depth(root / "data/nyu2_train/kitchen_0001_out/3.png", np.full((20, 30), 2.0), 8)


def grey_as_colour(root):
    Image.fromarray(picture()[..., 0]).save(root / "data/nyu2_train/kitchen_0001_out/3.png.jpg")


BROKEN = [
    (remove_file, r"row 3: .*kitchen_0001_out/3\.png is missing"),
    (truncate_file, r"row 3: .*kitchen_0001_out/3\.png\.jpg cannot be read \(.*[Tt]runcated"),
    (not_a_picture, r"row 3: .*kitchen_0001_out/3\.png\.jpg cannot be read"),
    (other_size, r"row 3: .*\(48, 64, 3\).*\(20, 30\)"),
    (grey_as_colour, r"row 3: 3\.png\.jpg is L .*mixed up"),
    (lambda root: change_row(root, lambda row: row[::-1]), r"row 3: .*mixed up"),
    (
        lambda root: change_row(root, lambda row: row[:1]),
        r"row 3: .*has 1 columns; expected colour file,depth file",
    ),
    (
        lambda root: change_row(root, lambda row: ["../secret.png", row[1]]),
        r"row 3: '\.\./secret\.png' leaves",
    ),
    (lambda root: change_row(root, lambda row: [row[0], "/etc/hostname"]), r"row 3: '/etc/hostname' leaves"),
]


@pytest.mark.parametrize(("breaks", "message"), BROKEN)
def test_a_broken_row_is_named_and_leaves_no_pack(tmp_path, breaks, message):
    root = kaggle(tmp_path / "kaggle")
    breaks(root)
    with pytest.raises(InputError, match=r"nyu2_train\.csv " + message):
        packed(root, tmp_path)
    assert not list((tmp_path / "packs").glob("*"))


@pytest.mark.parametrize(("breaks", "message"), BROKEN)
def test_skip_bad_leaves_out_a_broken_row_and_counts_it(tmp_path, breaks, message):
    root = kaggle(tmp_path / "kaggle")
    breaks(root)
    pack = packed(root, tmp_path, PackSpec(input_size=32, skip_bad=True))
    names = pack.sources("train") + pack.sources("val")
    assert pack.skipped == 1
    assert len(names) == 14
    assert not any("kitchen_0001_out/3." in name for name in names)


def test_many_missing_files_are_shown_together_but_not_all(tmp_path):
    root = kaggle(tmp_path / "kaggle")
    for path in root.glob("data/nyu2_train/*/*.jpg"):
        path.unlink()
    with pytest.raises(InputError) as caught:
        packed(root, tmp_path)
    assert len(str(caught.value).splitlines()) == 11
    assert "5 more rows" in str(caught.value)


def test_a_split_with_nothing_usable_is_an_error_even_when_bad_frames_are_skipped(tmp_path):
    root = kaggle(tmp_path / "kaggle")
    for path in root.glob("data/nyu2_test/*_colors.png"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match="test split: holds no usable frame"):
        packed(root, tmp_path, PackSpec(input_size=32, skip_bad=True))


def test_an_empty_list_and_a_missing_list_are_named(tmp_path):
    root = kaggle(tmp_path / "kaggle")
    list_file(root, "train").write_text("\n")
    with pytest.raises(InputError, match=r"nyu2_train\.csv: is empty"):
        packed(root, tmp_path)
    list_file(root, "train").unlink()
    with pytest.raises(InputError, match=r"nyu2_train\.csv: is missing"):
        packed(root, tmp_path)


def test_a_list_that_is_no_text_is_named(tmp_path):
    root = kaggle(tmp_path / "kaggle")
    list_file(root, "test").write_bytes(b"\xff\xfe\x00broken,\x00")
    with pytest.raises(InputError, match=r"nyu2_test\.csv: cannot be read as CSV"):
        packed(root, tmp_path)


def test_a_missing_or_unknown_data_folder_names_what_is_expected(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: does not exist; expected \"rooms\".*nyu2_train\.csv"):
        packed(tmp_path / "nowhere", tmp_path)
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match="photos: has no known layout"):
        packed(tmp_path / "photos", tmp_path)


def test_a_file_that_is_no_labelled_mat_is_named(tmp_path):
    (tmp_path / "old.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    with pytest.raises(InputError, match=r"old\.mat: cannot be read.*-v7\.3"):
        packed(tmp_path / "old.mat", tmp_path)
    with h5py.File(tmp_path / "other.mat", "w") as file:
        file["images"], file["depths"] = np.zeros((4, 3, 8, 6), np.uint8), np.zeros((4, 6, 8), np.float32)
    with pytest.raises(InputError, match=r"other\.mat: images \(4, 3, 8, 6\) and depths \(4, 6, 8\)"):
        packed(tmp_path / "other.mat", tmp_path)


def test_a_broken_frame_file_is_named(tmp_path):
    root = fastdepth(tmp_path / "fast")
    (root / "val/official/00001.h5").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"val/official/00001\.h5 cannot be read"):
        packed(root, tmp_path)
    with h5py.File(root / "val/official/00001.h5", "w") as file:
        file["rgb"] = picture().transpose(2, 0, 1)
    with pytest.raises(InputError, match=r"val/official/00001\.h5.*depth"):
        packed(root, tmp_path)


def test_a_folder_without_a_frame_is_named(tmp_path):
    root = fastdepth(tmp_path / "fast")
    for path in root.glob("val/official/*"):
        path.unlink()
    with pytest.raises(InputError, match=r"val: holds no \.h5 file"):
        packed(root, tmp_path)
