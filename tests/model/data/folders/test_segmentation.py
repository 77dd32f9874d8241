"""Masks name classes by index, whatever their colours; what does not fit its picture is named."""

import numpy as np
import pytest
import torch
from PIL import Image

from model.data.folders.segmentation import masked_pictures
from model.errors import InputError
from tests.model.data.folders.picture_files import noise, png, save

WIDTH, HEIGHT = 48, 32
PALETTE = [200, 10, 10, 0, 0, 0, 255, 255, 255, 7, 7, 7]  # the colours of classes 0 to 3 say nothing


def mask(values=(0, 1, 2, 3), mode="L"):
    """Stripes of the values, left to right."""
    image = Image.fromarray(np.repeat(np.array(values, np.uint8), WIDTH // len(values))[None].repeat(HEIGHT, 0))
    if mode == "P":
        image.putpalette(PALETTE)
    return image


def masked(root, count=6, values=(0, 1, 2, 3), mode="L"):
    for split in ("train", "val", "test"):
        for n in range(count):
            save(root / split / f"images/{n}.jpg", noise(WIDTH, HEIGHT, n))
            save(root / split / f"masks/{n}.png", mask(values, mode))
    return root


def stripes(target):
    return target[0, [2, 10, 20, 28]].tolist()


@pytest.mark.parametrize("mode", ["L", "P"])
def test_the_class_is_the_index_and_never_the_colour(tmp_path, mode):
    test = masked_pictures(masked(tmp_path, mode=mode), 32)["test"]
    picture, target = test[0]
    assert test.names[0] == "test/images/0.jpg"
    assert (picture.dtype, tuple(picture.shape)) == (torch.uint8, (3, 32, 32))
    assert (target.dtype, tuple(target.shape), stripes(target)) == (torch.uint8, (32, 32), [0, 1, 2, 3])
    assert test.classes == ("0", "1", "2", "3")


def test_masks_of_1_2_and_4_bits_hold_classes_too(tmp_path):
    masked(tmp_path)
    save(tmp_path / "test/masks/0.png", mask((0, 255, 0, 255)).convert("1"))
    two = png(WIDTH, HEIGHT, 2, 0, [bytes([0b00000000] * 3 + [0b01010101] * 3 + [0b10101010] * 3 + [255] * 3)] * HEIGHT)
    four = png(WIDTH, HEIGHT, 4, 0, [bytes([0] * 6 + [0x11] * 6 + [0x22] * 6 + [0x33] * 6)] * HEIGHT)
    (tmp_path / "test/masks/1.png").write_bytes(two)
    (tmp_path / "test/masks/2.png").write_bytes(four)
    test = masked_pictures(tmp_path, 32)["test"]
    assert [stripes(test[n][1]) for n in range(3)] == [[0, 1, 0, 1], [0, 1, 2, 3], [0, 1, 2, 3]]


def test_no_class_appears_between_two_when_a_mask_shrinks(tmp_path):
    masked(tmp_path, values=(0, 3, 0, 3))
    edges = np.random.default_rng(0).choice(np.array([0, 3, 255], np.uint8), (HEIGHT, WIDTH))
    save(tmp_path / "test/masks/0.png", Image.fromarray(edges))
    assert masked_pictures(tmp_path, 16)["test"][0][1].unique().tolist() == [0, 3, 255]


def test_255_is_to_be_ignored_and_no_class(tmp_path):
    test = masked_pictures(masked(tmp_path, values=(0, 1, 255, 255)), 32)["test"]
    assert test.classes == ("0", "1")
    assert stripes(test[0][1]) == [0, 1, 255, 255]


def test_classes_are_the_lines_of_classes_txt(tmp_path):
    masked(tmp_path)
    (tmp_path / "classes.txt").write_text("sky\nroad\nlow wall\ncar\ntree\n\n")
    assert masked_pictures(tmp_path, 32)["val"].classes == ("sky", "road", "low wall", "car", "tree")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("sky\n\nroad", "classes.txt line 2: is empty"),
        ("sky\nroad\nsky", "classes.txt line 3: is there twice"),
        ("sky", "names 1 classes"),
        ("\n".join(map(str, range(256))), "names 256 classes; expected 2 to 255"),
        (b"\xff\xfe\x00", "classes.txt: cannot be read"),
    ],
)
def test_a_list_of_classes_that_is_none_is_refused(tmp_path, text, problem):
    (masked(tmp_path) / "classes.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=problem):
        masked_pictures(tmp_path, 32)


def test_a_class_that_is_not_named_is_an_error_of_the_item(tmp_path):
    save(masked(tmp_path, values=(0, 1, 2, 2)) / "test/masks/0.png", mask((0, 1, 2, 3)))
    test = masked_pictures(tmp_path, 32)["test"]
    with pytest.raises(InputError, match=r"test/masks/0.png: has class 3; expected 0 to 2, or 255"):
        test[0]
    assert stripes(test[1][1]) == [0, 1, 2, 2]


def test_masks_of_one_class_are_refused_as_255_is_none(tmp_path):
    with pytest.raises(InputError, match=r"no two classes .* A mask of 0 and 255 has one class"):
        masked_pictures(masked(tmp_path, values=(0, 255)), 32)


def test_broken_masks_do_not_count_and_raise_when_they_are_read(tmp_path):
    (masked(tmp_path) / "train/masks/0.png").write_text("broken")
    save(tmp_path / "train/masks/1.png", noise(WIDTH, HEIGHT))
    train = masked_pictures(tmp_path, 32)["train"]
    assert train.classes == ("0", "1", "2", "3")
    with pytest.raises(InputError, match=r"masks/0.png: is no PNG picture"):
        train[0]
    with pytest.raises(InputError, match=r"masks/1.png: is a mask of mode RGB; expected one channel .* Colours name"):
        train[1]


@pytest.mark.parametrize("mode", ["LA", "I;16"])
def test_a_mask_has_one_channel_of_8_bits(tmp_path, mode):
    save(masked(tmp_path) / "test/masks/0.png", mask().convert(mode))
    with pytest.raises(InputError, match=f"is a mask of mode {mode}"):
        masked_pictures(tmp_path, 32)["test"][0]


@pytest.mark.parametrize(("size", "hint"), [((32, 30), False), ((HEIGHT, WIDTH), True)])
def test_a_mask_of_another_size_is_named_with_both_sizes(tmp_path, size, hint):
    save(masked(tmp_path) / "test/masks/0.png", mask().resize(size))
    with pytest.raises(InputError, match=r"masks/0.png: has 32 x .* pixels, and .*images/0.jpg 48 x 32") as caught:
        masked_pictures(tmp_path, 32)["test"][0]
    assert ("EXIF" in caught.value.hint) == hint


def test_a_mask_of_the_picture_as_it_is_seen_fits_a_turned_photograph(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(masked(tmp_path) / "test/images/0.jpg", noise(HEIGHT, WIDTH), exif=exif)
    assert stripes(masked_pictures(tmp_path, 32)["test"][0][1]) == [0, 1, 2, 3]


def test_all_without_partner_are_named_together(tmp_path):
    (masked(tmp_path) / "val/masks/1.png").unlink()
    (tmp_path / "val/images/2.jpg").unlink()
    with pytest.raises(InputError) as caught:
        masked_pictures(tmp_path, 32)
    first, second = (str(error) for error in caught.value.errors)
    assert "val/images/1.jpg: has no partner in val/masks" in first
    assert "val/masks/2.png: has no partner in val/images" in second


def test_of_many_without_partner_ten_are_shown_and_the_others_counted(tmp_path):
    for n in range(13):
        save(masked(tmp_path) / f"val/images/more{n}.jpg", noise(WIDTH, HEIGHT))
    with pytest.raises(InputError, match="3 more files are wrong") as caught:
        masked_pictures(tmp_path, 32)
    assert len(caught.value.errors) == 11


def test_a_mask_that_is_no_png_is_refused(tmp_path):
    (masked(tmp_path) / "val/masks/1.png").unlink()
    save(tmp_path / "val/masks/1.jpg", mask())
    with pytest.raises(InputError, match=r"val/masks/1.jpg: is no PNG"):
        masked_pictures(tmp_path, 32)


def test_without_split_folders_pictures_are_drawn_with_their_masks(tmp_path):
    for n in range(30):
        save(tmp_path / f"images/a/{n}.b.jpg", noise(WIDTH, HEIGHT, n))
        save(tmp_path / f"masks/a/{n}.b.png", mask((0, n + 1)))
    (tmp_path / "classes.txt").write_text("\n".join(f"class {n}" for n in range(31)))
    splits = masked_pictures(tmp_path, 32, 0.2, 0.2)
    assert sum(map(len, splits.values())) == 30
    for split in splits.values():
        for number, name in enumerate(split.names):
            assert split[number][1].max() == int(name.split("/")[2].partition(".")[0]) + 1


def test_a_missing_folder_is_named(tmp_path):
    masked(tmp_path)
    (tmp_path / "test/masks").rename(tmp_path / "test/labels")
    with pytest.raises(InputError, match=r"test/masks: does not exist; expected a folder with images and masks"):
        masked_pictures(tmp_path, 32)
