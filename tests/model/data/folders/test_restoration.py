"""Pairs keep their own pixels: nothing is resized, and both show the same centre."""

import numpy as np
import pytest
import torch

from model.data.folders.restoration import picture_pairs
from model.errors import InputError
from tests.model.data.folders.picture_files import noise, save


def pairs(root, count=4, shape=(45, 38)):
    for split in ("train", "val", "test"):
        for n in range(count):
            save(root / split / f"input/{n}.png", noise(*shape, seed=n))
            save(root / split / f"target/{n}.bmp", noise(*shape, seed=100 + n))
    return root


def test_both_pictures_are_the_same_centre_at_their_own_resolution(tmp_path):
    test = picture_pairs(pairs(tmp_path), 32)["test"]
    for n in range(4):
        for pixels, seed in zip(test[n], (n, 100 + n), strict=True):
            expected = np.asarray(noise(45, 38, seed))[3:35, 6:38].transpose(2, 0, 1)
            assert pixels.dtype == torch.uint8
            np.testing.assert_array_equal(pixels, expected)
    assert test.names == tuple(f"test/input/{n}.png" for n in range(4))
    assert test.classes == ()


def test_pictures_smaller_than_the_network_sees_are_named(tmp_path):
    save(pairs(tmp_path) / "test/target/1.bmp", noise(45, 31))
    test = picture_pairs(tmp_path, 32)["test"]
    with pytest.raises(InputError, match=r"target/1.bmp: has 45 x 31 pixels; expected at least 32 x 32. It is not enl"):
        test[1]
    assert test[0][0].shape == (3, 32, 32)


def test_pairs_that_differ_in_size_are_named(tmp_path):
    save(pairs(tmp_path) / "test/target/1.bmp", noise(90, 76))
    with pytest.raises(InputError, match=r"target/1.bmp: has 90 x 76 pixels, and .*input/1.png 45 x 38; expected one"):
        picture_pairs(tmp_path, 32)["test"][1]


def test_a_large_jpeg_is_decoded_at_its_full_size(tmp_path):
    pairs(tmp_path)
    save(tmp_path / "test/input/0.jpg", noise(400, 300), quality=95)
    (tmp_path / "test/input/0.png").unlink()
    save(tmp_path / "test/target/0.bmp", noise(400, 300))
    pixels, _ = picture_pairs(tmp_path, 32)["test"][0]
    assert pixels.float().std() > 40, "noise stays noise"


def test_two_pictures_of_one_name_are_refused(tmp_path):
    save(pairs(tmp_path) / "train/input/1.jpg", noise(45, 38))
    with pytest.raises(InputError, match=r"train/input/1.png: has the same name as 1.jpg"):
        picture_pairs(tmp_path, 32)


def test_a_picture_without_partner_is_named(tmp_path):
    (pairs(tmp_path) / "train/input/1.png").unlink()
    with pytest.raises(InputError, match=r"train/target/1.bmp: has no partner in train/input"):
        picture_pairs(tmp_path, 32)


def test_without_split_folders_pairs_are_drawn(tmp_path):
    for n in range(30):
        save(tmp_path / f"input/{n}.png", noise(40, 40, n))
        save(tmp_path / f"target/{n}.png", noise(40, 40, n))
    splits = picture_pairs(tmp_path, 32, 0.2, 0.2)
    assert sum(map(len, splits.values())) == 30
    for split in splits.values():
        assert all(torch.equal(*split[n]) for n in range(len(split)))
