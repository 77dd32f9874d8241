"""HDF5 files: frames, the labelled file and packs of wrong shapes, types, sizes and bytes are reported by name."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.nyu_frames import Entry, read_frame
from model.data.pack import Pack, PackSpec, prepare_pack
from tests.bad_input.answers import handled, refusal
from tests.generated import generated
from tests.model.data.nyu_files import fastdepth, kaggle, matlab, metres, packed, picture

EXAMPLES = 200
FRAME = "val/official/00001.h5"
COLOUR, DEPTH = picture().transpose(2, 0, 1), metres()
MANY = 10**12


def written(path: Path, **entries: Any) -> None:
    """A file of these entries; a callable makes its own."""
    path.unlink(missing_ok=True)
    with h5py.File(path, "w") as file:
        for name, entry in entries.items():
            if callable(entry):
                entry(file, name)
            else:
                file[name] = entry


def group(file: h5py.File, name: str) -> None:
    file.create_group(name)


def nothing(file: h5py.File, name: str) -> None:
    file.create_dataset(name, data=h5py.Empty("u1"))


def itself(file: h5py.File, name: str) -> None:
    file[name] = h5py.SoftLink(f"/{name}")


def elsewhere(file: h5py.File, name: str) -> None:
    file[name] = h5py.ExternalLink("/etc/passwd", name)


def claimed(kind: str, *shape: int) -> Callable[[h5py.File, str], None]:
    """A dataset of any size that takes no room."""
    return lambda file, name: file.create_dataset(name, shape, kind, chunks=(1,) * (len(shape) - 1) + (48,)) and None


FRAMES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "no depth": {"rgb": COLOUR},
    "no colour": {"depth": DEPTH},
    "other names": {"image": COLOUR, "depths": DEPTH},
    "group for colour": {"rgb": group, "depth": DEPTH},
    "group for depth": {"rgb": COLOUR, "depth": group},
    "one number": {"rgb": np.uint8(3), "depth": DEPTH},
    "null": {"rgb": nothing, "depth": DEPTH},
    "null depth": {"rgb": COLOUR, "depth": nothing},
    "link to itself": {"rgb": itself, "depth": DEPTH},
    "link to another file": {"rgb": elsewhere, "depth": DEPTH},
    "text": {"rgb": "colour", "depth": "depth"},
    "colour in float": {"rgb": COLOUR / 255, "depth": DEPTH},
    "colour of 16 bits": {"rgb": COLOUR.astype(np.uint16), "depth": DEPTH},
    "depth in millimetres": {"rgb": COLOUR, "depth": (DEPTH * 1000).astype(np.uint16)},
    "complex depth": {"rgb": COLOUR, "depth": DEPTH.astype(complex)},
    "depth of records": {"rgb": COLOUR, "depth": np.zeros(DEPTH.shape, [("a", "f4")])},
    "depth of bools": {"rgb": COLOUR, "depth": DEPTH > 3},
    "channels last": {"rgb": picture(), "depth": DEPTH},
    "turned depth": {"rgb": COLOUR, "depth": DEPTH.T},
    "one more axis": {"rgb": COLOUR[None], "depth": DEPTH[None]},
    "one channel": {"rgb": COLOUR[:1], "depth": DEPTH},
    "four channels": {"rgb": np.concatenate([COLOUR, COLOUR[:1]]), "depth": DEPTH},
    "no pixel": {"rgb": COLOUR[:, :0, :0], "depth": DEPTH[:0, :0]},
    "no row": {"rgb": COLOUR[:, :0], "depth": DEPTH[:0]},
    "a million squared": {"rgb": claimed("u1", 3, 10**6, 10**6), "depth": claimed("f4", 10**6, 10**6)},
    "as much in a row": {"rgb": claimed("u1", 3, 1, MANY), "depth": claimed("f4", 1, MANY)},
    "NaN": {"rgb": COLOUR, "depth": DEPTH * np.nan},
    "infinite": {"rgb": COLOUR, "depth": DEPTH * np.inf},
    "negative": {"rgb": COLOUR, "depth": -DEPTH},
    "zero": {"rgb": COLOUR, "depth": DEPTH * 0},
    "almost all NaN": {"rgb": COLOUR, "depth": np.where(DEPTH < 1.2, DEPTH, np.nan)},
}
FILES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("hello"),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "without its last byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "beginning alone": lambda path: path.write_bytes(path.read_bytes()[:96]),
    "zeros in the middle": lambda path: path.write_bytes(path.read_bytes()[:200] + bytes(path.stat().st_size - 200)),
    "another format": lambda path: path.write_bytes(b"MATLAB 5.0 MAT-file" + bytes(500)),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "link to nothing": lambda path: (path.unlink(), path.symlink_to("/nowhere")),
    "link to itself": lambda path: (path.unlink(), path.symlink_to(path.name)),
    "endless": lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
}
NAMES = {"no text": b"\xff1.h5", "a line end": b"a\nb.h5", "a terminal code": b"\x1b[2J.h5"}
IMAGES = np.stack([picture(n).transpose(2, 1, 0) for n in range(4)])
DEPTHS = np.stack([metres(n).T for n in range(4)])
LABELLED: dict[str, dict[str, Any]] = {
    "nothing": {},
    "no depths": {"images": IMAGES},
    "group": {"images": group, "depths": DEPTHS},
    "null": {"images": nothing, "depths": DEPTHS},
    "one number": {"images": np.uint8(3), "depths": DEPTHS},
    "one picture alone": {"images": IMAGES[0], "depths": DEPTHS[0]},
    "one frame": {"images": IMAGES[:1], "depths": DEPTHS[:1]},
    "two frames": {"images": IMAGES[:2], "depths": DEPTHS[:2]},
    "no frame": {"images": IMAGES[:0], "depths": DEPTHS[:0]},
    "fewer depths": {"images": IMAGES, "depths": DEPTHS[:3]},
    "as Python stores them": {"images": IMAGES.transpose(0, 3, 2, 1), "depths": DEPTHS.transpose(0, 2, 1)},
    "colour in float": {"images": IMAGES / 255, "depths": DEPTHS},
    "depths in millimetres": {"images": IMAGES, "depths": (DEPTHS * 1000).astype(np.uint16)},
    "NaN": {"images": IMAGES, "depths": DEPTHS * np.nan},
    "text": {"images": "images", "depths": "depths"},
    "scenes as numbers": {"images": IMAGES, "depths": DEPTHS, "scenes": np.arange(4)},
    "scenes as texts": {"images": IMAGES, "depths": DEPTHS, "scenes": [b"den"] * 4},
    "scenes as a group": {"images": IMAGES, "depths": DEPTHS, "scenes": group},
    "scenes of nothing": {"images": IMAGES, "depths": DEPTHS, "scenes": nothing},
    "as many frames as can be": {"images": claimed("u1", MANY, 3, 64, 48), "depths": claimed("f4", MANY, 64, 48)},
    "frames of any size": {"images": claimed("u1", 4, 3, 10**6, 10**6), "depths": claimed("f4", 4, 10**6, 10**6)},
}


def attribute(name: str, value: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file.attrs[name]
        if value is not None:
            file.attrs[name] = value

    return change


def entry(name: str, value: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        if value is not None:
            file[name] = value

    return change


PACKS: dict[str, Callable[[h5py.File], None]] = {
    "no format": attribute("format", None),
    "format of a list": attribute("format", [1, 2]),
    "another format": attribute("format", "depth-pack-9"),
    "no fingerprint": attribute("fingerprint", None),
    "no size": attribute("input_size", None),
    "size of a text": attribute("input_size", "wide"),
    "another size": attribute("input_size", 64),
    "no origin": attribute("origin", None),
    "no count of those skipped": attribute("skipped", None),
    "no split": entry("test", None),
    "split of a number": entry("val", 3),
    "no depth": entry("train/depth", None),
    "no source": entry("train/source", None),
    "fewer pictures": entry("train/image", np.zeros((1, 3, 32, 32), np.uint8)),
    "pictures in float": entry("test/image", np.zeros((2, 3, 32, 32), np.float32)),
    "depth of another size": entry("test/depth", np.zeros((2, 32, 32), np.uint16)),
    "one scene": entry("test/scene", np.int32(3)),
    "scenes of a text": entry("test/scene", "den"),
}
INPUTS = 2 * (len(FRAMES) + len(FILES)) + len(NAMES) + len(LABELLED) + 7 + 2 * len(PACKS) + EXAMPLES


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_that_is_not_as_it_should_be_is_reported_by_its_name_or_skipped(tmp_path, name):
    root = fastdepth(tmp_path / "fast")
    written(root / FRAME, **FRAMES[name])
    assert refusal(lambda: packed(root, tmp_path)).startswith(f"{root}/{FRAME}: ")
    assert not list((tmp_path / "packs").glob("*"))
    assert packed(root, tmp_path, PackSpec(input_size=32, skip_bad=True)).skipped == 1


@pytest.mark.parametrize("name", FILES)
def test_a_frame_that_is_no_whole_hdf5_is_reported_by_its_name_or_skipped(tmp_path, name):
    root = fastdepth(tmp_path / "fast")
    FILES[name](root / FRAME)
    assert refusal(lambda: packed(root, tmp_path)).startswith(f"{root}/{FRAME}: ")
    assert packed(root, tmp_path, PackSpec(input_size=32, skip_bad=True)).skipped == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_frame_whose_name_is_no_text_is_reported_in_signs_that_can_be_shown(tmp_path, name):
    root = fastdepth(tmp_path / "fast")
    (root / FRAME).rename(root / "val" / "official" / os.fsdecode(NAMES[name]))
    message = refusal(lambda: packed(root, tmp_path))
    assert "has a name that is not text" in message
    assert message.isprintable()


@pytest.mark.parametrize("name", LABELLED)
def test_a_labelled_file_that_is_not_as_it_should_be_is_reported_by_its_name(tmp_path, name):
    written(tmp_path / "labelled.mat", **LABELLED[name])
    assert refusal(lambda: packed(tmp_path / "labelled.mat", tmp_path)).startswith(f"{tmp_path}/labelled.mat")
    assert not list((tmp_path / "packs").glob("*"))


@pytest.mark.parametrize(
    "name", [name for name in FILES if name not in ("folder", "pipe", "endless", "link to itself")]
)
def test_a_labelled_file_that_is_no_whole_hdf5_is_reported_by_its_name(tmp_path, name):
    FILES[name](matlab(tmp_path / "labelled.mat"))
    assert refusal(lambda: packed(tmp_path / "labelled.mat", tmp_path)).startswith(f"{tmp_path}/labelled.mat: ")


@pytest.mark.parametrize("name", PACKS)
def test_a_pack_that_was_changed_is_refused_where_it_is_named_and_made_again_where_it_was_made(tmp_path, name):
    root = kaggle(tmp_path / "kaggle")
    pack = packed(root, tmp_path)
    with h5py.File(pack.path, "a") as file:
        PACKS[name](file)
    assert refusal(lambda: Pack(pack.path)).startswith(f"{pack.path}: ")
    assert packed(root, tmp_path).fingerprint == pack.fingerprint


def test_a_pack_has_a_short_name_however_long_that_of_the_data(tmp_path):
    root = kaggle(tmp_path / "kaggle").rename(tmp_path / ("größe" * 30))
    assert packed(root, tmp_path).size("test") == 2


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000, "a\0b", "\udcff", "", "/dev/zero", "/dev/null"])
def test_data_that_no_path_can_name_are_reported(tmp_path, name):
    assert refusal(lambda: packed(tmp_path / name if name else tmp_path, tmp_path))


def test_packs_that_cannot_be_written_are_reported_with_their_folder(tmp_path):
    (tmp_path / "packs").write_text("a file")
    message = refusal(lambda: prepare_pack("rooms", tmp_path / "packs", PackSpec(32, 1, 1, 1)))
    assert message.startswith(f"{tmp_path}/packs: cannot be written to")


@pytest.fixture(scope="module")
def frame(tmp_path_factory) -> tuple[Path, bytes]:
    path = tmp_path_factory.mktemp("frame") / "a.h5"
    written(path, rgb=COLOUR, depth=DEPTH)
    return path, path.read_bytes()


@given(place=st.floats(0, 1), junk=st.binary(max_size=16), cut=st.floats(0, 1))
@generated(EXAMPLES)
def test_a_frame_cut_or_overwritten_anywhere_is_read_or_reported(frame, place, junk, cut):
    path, whole = frame
    at = int(place * 2400) if cut > 0.6 else int(place * len(whole))  # the tables of the file stand at its beginning
    changed = whole[:at] + junk + whole[at + len(junk) :]
    path.write_bytes(changed[: int(len(changed) * cut)] if cut < 0.3 else changed)
    handled(lambda: read_frame("nyu-fastdepth", Entry(str(path), path, path, path.name, "here", 1), 32))
