"""What is broken in NYUv2 data is named by file and row, or skipped and counted when asked."""

import os
import threading

import h5py
import numpy as np
import pytest
from PIL import Image

from model.data.pack import PackSpec
from model.errors import InputError
from tests.model.data.nyu_files import (
    HEIGHT,
    WIDTH,
    fastdepth,
    kaggle,
    list_file,
    packed,
    picture,
    read_rows,
    save_depth,
    write_rows,
)
from tests.model.data.pack_files import sources


def test_a_frame_almost_without_depth_is_bad(tmp_path):
    root = kaggle(tmp_path / "kaggle")
    depth = np.zeros((HEIGHT, WIDTH))
    depth[0, :20] = 2
    save_depth(root / "data/nyu2_test/00001_depth.png", depth, 16)
    with pytest.raises(InputError, match=r"nyu2_test.csv row 2: .*99% of its pixels"):
        packed(root, tmp_path)


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


def test_a_broken_picture_leaves_no_threads_to_the_garbage_collector(tmp_path):
    root = kaggle(tmp_path / "kaggle")
    (root / "data/nyu2_train/office_0002a_out/3.png.jpg").write_bytes(b"no picture")
    before = set(threading.enumerate())
    with pytest.raises(InputError) as caught:
        packed(root, tmp_path)
    assert caught.value.__traceback__, "it holds all frames of the call, as an error does that is looked at later"
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize(("breaks", "message"), BROKEN)
def test_skip_bad_leaves_out_a_broken_row_and_counts_it(tmp_path, breaks, message):
    root = kaggle(tmp_path / "kaggle")
    breaks(root)
    pack = packed(root, tmp_path, PackSpec(input_size=32, skip_bad=True))
    names = sources(pack, "train") + sources(pack, "val")
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
