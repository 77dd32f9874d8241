"""A folder of photographs of every kind in a pack: what can be read is there, and what cannot is named or counted."""

import numpy as np
import pytest
import torch
from PIL import Image

from model.data.folders.pictures import read_picture
from model.data.pack import Pack, PackSpec
from model.data.task_pack import prepare_data
from model.errors import InputError
from tests.model.data.folders.picture_files import jpeg, noise, png, quarters, save

SIZE = 32
BROKEN = {
    "cut off": ("train/cat/0.jpg", jpeg(noise())[:-800]),
    "no picture": ("train/ant/0.jpg", b"<html>404</html>"),
    "huge": ("train/cat/huge.png", png(200_000, 200_000, 8, 2, [])),
    "empty": ("val/ant/1.jpg", b""),
}


@pytest.fixture
def photographs(tmp_path):
    """Pictures by class, among them grey, turned, transparent and 16-bit ones."""
    root = tmp_path / "photographs"
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        for number in range(count):
            save(root / split / "ant" / f"{number}.jpg", noise(seed=number))
            save(root / split / "cat" / f"{number}.jpg", quarters())
    save(root / "train/ant/grey.png", noise().convert("L"))
    save(root / "train/ant/palette.gif.png", noise().convert("P"))
    save(root / "train/cat/clear.png", noise().convert("RGBA"))
    save(root / "train/cat/deep.png", Image.fromarray(np.full((48, 64), 40_000, np.uint16)))
    exif = Image.Exif()
    exif[0x0112] = 6
    save(root / "train/cat/turned.jpg", quarters(), exif=exif)
    return root


def packed(root, tmp_path, **more):
    spec = PackSpec(input_size=SIZE, **more)
    return Pack(prepare_data("classification", str(root), tmp_path / "packs", spec))


def test_pictures_of_every_kind_are_packed_as_they_are_seen(photographs, tmp_path):
    pack = packed(photographs, tmp_path)
    assert [pack.size(split) for split in ("train", "val", "test")] == [13, 4, 4]
    assert pack.task.classes == ("ant", "cat")
    names = sorted(str(path.relative_to(photographs)) for path in (photographs / "train").rglob("*.*"))
    assert pack.targets("train").tolist() == [int("/cat/" in name) for name in names]
    images = dict(zip(names, pack.images("train"), strict=True))
    for name, image in images.items():
        assert torch.equal(image, read_picture(photographs / name, SIZE, "shorter side").pixels), name
    assert torch.equal(images["train/ant/grey.png"][0], images["train/ant/grey.png"][2])
    assert images["train/cat/deep.png"].unique().tolist() == [round(40_000 / 257)]


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_picture_is_named_or_skipped_and_counted(photographs, tmp_path, kind):
    name, content = BROKEN[kind]
    (photographs / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        packed(photographs, tmp_path)
    assert str(caught.value).startswith(f"{photographs / name}: ")
    assert not list((tmp_path / "packs").glob("*.h5"))
    whole = 21 + (kind == "huge")
    pack = packed(photographs, tmp_path, skip_bad=True)
    assert pack.skipped == 1
    assert sum(map(pack.size, ("train", "val", "test"))) == whole - 1


def test_all_broken_ones_are_skipped_and_counted_together(photographs, tmp_path):
    for name, content in BROKEN.values():
        (photographs / name).write_bytes(content)
    pack = packed(photographs, tmp_path, skip_bad=True)
    assert (pack.skipped, pack.size("train"), pack.size("val")) == (4, 11, 3)
