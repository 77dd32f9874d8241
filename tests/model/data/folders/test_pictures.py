"""Any whole picture becomes the same RGB square; what is broken, huge or no picture is named with the reason."""

import os
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

from model.data.folders import pictures
from model.data.folders.pictures import read_picture
from model.errors import InputError
from tests.model.data.folders.picture_files import (
    BLUE,
    GREEN,
    RED,
    WHITE,
    corners,
    jpeg,
    noise,
    png,
    quarters,
    save,
)


def read(path, size=32, resize="whole"):
    return read_picture(path, size, resize).pixels


@pytest.mark.parametrize("resize", ["whole", "shorter side", "none"])
def test_a_picture_is_uint8_rgb_in_the_size_of_the_network(tmp_path, resize):
    picture = read_picture(save(tmp_path / "a.png", quarters()), 32, resize)
    assert (picture.pixels.dtype, tuple(picture.pixels.shape)) == (torch.uint8, (3, 32, 32))
    assert picture.whole == (64, 48)
    assert corners(picture.pixels) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("mode", ["P", "RGBA", "CMYK", "1", "L", "LA"])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    image = Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 20, 0).repeat(20, 1)).convert("RGB")
    path = save(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"), image.convert(mode))
    with Image.open(path) as saved:
        assert saved.mode == mode
    assert corners(read(path, 16)) == [(0, 0, 0), WHITE, (0, 0, 0), WHITE]


def test_colours_survive_palettes_cmyk_and_dropped_transparency(tmp_path):
    clear = quarters().convert("RGBA")
    clear.putalpha(0)
    for path in (
        save(tmp_path / "p.png", quarters().convert("P", palette=Image.Palette.ADAPTIVE)),
        save(tmp_path / "clear.png", quarters().quantize(8), transparency=b"\0" * 8),
        save(tmp_path / "cmyk.tif", quarters().convert("CMYK")),
        save(tmp_path / "rgba.png", clear),
    ):
        with warnings.catch_warnings(action="error"):
            assert corners(read(path)) == [RED, GREEN, BLUE, WHITE], path.name


@pytest.mark.parametrize("kind", ["a.png", "a.tif", "a.pgm"])
def test_16_bit_grey_is_scaled_to_8_bits_and_not_clipped(tmp_path, kind):
    deep = np.full((20, 20), 500, np.uint16)
    deep[:, 10:] = 128 * 257
    deep[10:] = 65535
    read_corners = corners(read(save(tmp_path / kind, Image.fromarray(deep)), 20))
    assert read_corners == [(2,) * 3, (128,) * 3, (255,) * 3, (255,) * 3]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_whose_range_is_unknown_are_no_picture(tmp_path, mode):
    values = np.full((20, 20), 70_000, np.int32 if mode == "I" else np.float32)
    with pytest.raises(InputError, match=r"deep.tif: cannot be read \(its values are"):
        read(save(tmp_path / "deep.tif", Image.fromarray(values)))


@pytest.mark.parametrize("resize", ["whole", "shorter side", "none"])
@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, [RED, GREEN, BLUE, WHITE]),
        (3, [WHITE, BLUE, GREEN, RED]),
        (6, [BLUE, RED, WHITE, GREEN]),
        (8, [GREEN, WHITE, RED, BLUE]),
    ],
)
def test_a_photograph_is_turned_upright_as_its_exif_says(tmp_path, resize, orientation, expected):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = read_picture(save(tmp_path / "a.png", quarters(), exif=exif), 32, resize)
    assert corners(picture.pixels) == expected
    assert picture.whole == ((48, 64) if orientation in (6, 8) else (64, 48))


@pytest.mark.parametrize(("shape", "decoded"), [((1600, 1200), (300, 400)), ((1602, 1203), (1203, 1602))])
def test_a_large_jpeg_is_shrunk_by_its_decoder_where_that_does_not_move_it(tmp_path, monkeypatch, shape, decoded):
    exif = Image.Exif()
    exif[0x0112] = 6
    large = noise(8, 6).resize(shape, Image.Resampling.BICUBIC)
    turned = save(tmp_path / "a.jpg", large, exif=exif, quality=95)
    upright = save(tmp_path / "a.png", large.transpose(Image.Transpose.ROTATE_270))
    sizes, original = [], pictures.rgb
    monkeypatch.setattr(pictures, "rgb", lambda image: sizes.append(image.size) or original(image))
    for resize in ("whole", "shorter side"):
        difference = read(turned, 120, resize).float() - read(upright, 120, resize).float()
        assert difference.abs().mean() < 0.5
    assert sizes == [decoded, shape[::-1]] * 2


@pytest.mark.parametrize("shape", [(64, 48), (48, 64), (41, 97), (50, 50), (300, 20)])
def test_the_shorter_side_is_resized_and_the_centre_cut_as_torchvision_does(tmp_path, shape):
    path = save(tmp_path / "a.png", noise(*shape))
    with Image.open(path) as image:
        expected = functional.center_crop(functional.resize(image, 37, functional.InterpolationMode.BICUBIC), 32)
    difference = read(path, 32, "shorter side").int() - torch.from_numpy(np.array(expected)).permute(2, 0, 1).int()
    assert difference.abs().max() <= 1


def test_of_a_long_strip_only_the_centre_is_resized(tmp_path, monkeypatch):
    sizes, resize = [], Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda image, size, *rest: sizes.append(size) or resize(image, size, *rest)
    )
    read(save(tmp_path / "strip.png", Image.new("RGB", (2000, 2))), 32, "shorter side")
    assert sizes == [(32, 32)], "the whole of a strip of 5000000 x 10 would not fit into memory"


def test_the_centre_keeps_its_own_pixels(tmp_path):
    image = noise(40, 35)
    expected = np.asarray(image)[1:33, 4:36]
    np.testing.assert_array_equal(read(save(tmp_path / "a.png", image), 32, "none").permute(1, 2, 0), expected)


def test_a_picture_is_not_enlarged_where_nothing_may_be_resized(tmp_path):
    with pytest.raises(InputError, match=r"small.png: has 40 x 31 pixels; expected at least 32 x 32"):
        read(save(tmp_path / "small.png", noise(40, 31)), 32, "none")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\n" + b"\x07" * 500, "cannot be read|is no .* picture"),
        ("a.jpg", jpeg(noise())[:-900], r"cannot be read \(image file is truncated"),
        ("a.jpg", b"This is a letter.\n", "is no JPEG or PNG or .* picture"),
        ("a.jpg", b"", "is empty"),
        ("a.png", png(60_000, 60_000, 8, 2, []), "far too many pixels; expected at most 50 million"),
        ("a.png", png(8_000, 7_000, 8, 2, []), "has 8000 x 7000 pixels; expected at most 50 million"),
        ("a.png", png(0, 9, 8, 2, []), "cannot be read|is no .* picture"),
        ("a.png", png(20, 20, 8, 2, [b"\7" * 60] * 20)[:60], r"cannot be read \(image file is truncated"),
    ],
    ids=["bytes", "truncated", "text", "empty", "60000 x 60000", "56 million", "no width", "truncated PNG"],
)
def test_what_is_no_whole_picture_is_named_with_the_reason(tmp_path, name, content, problem):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: .*({problem})") as caught:
        read(path)
    assert (caught.value.where, bool(caught.value.expected), bool(caught.value.hint)) == (str(path), True, True)


def test_a_picture_that_is_too_large_is_never_decoded(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", noise())
    monkeypatch.setattr(pictures, "MOST_PIXELS", 64 * 48 - 1)
    monkeypatch.setattr(Image.Image, "resize", lambda *args, **options: pytest.fail("decoded"))
    monkeypatch.setattr(pictures, "rgb", lambda image: pytest.fail("decoded"))
    with pytest.raises(InputError, match="has 64 x 48 pixels"):
        read(path)


@pytest.mark.parametrize("kind", ["png", "webp", "tif"])
def test_a_file_of_several_pictures_is_refused(tmp_path, kind):
    path = save(tmp_path / f"a.{kind}", noise(), save_all=True, append_images=[noise(seed=1)])
    with pytest.raises(InputError, match=f"a.{kind}: holds 2 pictures; expected a single one"):
        read(path)


def test_of_a_photograph_with_a_preview_the_photograph_is_read(tmp_path):
    path = tmp_path / "a.jpg"
    save(path, quarters(), format="MPO", save_all=True, append_images=[noise(16, 12)], quality=95)
    difference = read(path).int() - read(save(tmp_path / "a.png", quarters())).int()
    assert difference.float().abs().mean() < 3


@pytest.mark.parametrize("kind", ["GIF", "ICO", "PCX"])
def test_no_other_format_is_decoded_whatever_the_suffix(tmp_path, kind):
    path = save(tmp_path / "a.png", noise(32, 32), format=kind)
    with pytest.raises(InputError, match=r"a.png: is no JPEG or PNG or .* picture"):
        read(path)


def test_a_pipe_or_a_broken_link_is_an_error_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    for name in ("pipe.png", "link.png"):
        with pytest.raises(InputError, match=f"{name}: is not a file, or a broken link"):
            read(tmp_path / name)
