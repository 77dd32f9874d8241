"""Pictures and their lists: a broken one is reported by file and row, or skipped and counted, and fills no memory."""

import io
import os
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model.data.nyu_frames import MOST_PIXELS, Entry, read_frame
from model.data.pack import PackSpec
from tests.bad_input.answers import handled, refusal
from tests.generated import generated
from tests.model.data.nyu_files import HEIGHT, WIDTH, kaggle, list_file, metres, packed, picture, read_rows, write_rows

EXAMPLES = 200
COLOUR, DEPTH = "data/nyu2_train/kitchen_0001_out/3.png.jpg", "data/nyu2_train/kitchen_0001_out/3.png"


def png(width: int, height: int, channels: int, body: bytes = zlib.compress(bytes(1000)), more: bytes = b"") -> bytes:
    """A PNG that claims a size, whatever its body holds."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    data = b"Comment\0\0" + zlib.compress(bytes(200_000_000), 9)
    return struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))


def saved(array: np.ndarray, kind: str, mode: str = "") -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(stream, kind)
    return stream.getvalue()


def write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda root: (root / name).write_bytes(content) and None


def link(name: str, target: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / name).unlink()
        (root / name).symlink_to(target)

    return change


def replaced(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / name).unlink()
        make(root / name)

    return change


JPEG, PNG8 = saved(picture(), "JPEG"), saved(np.rint(metres() * 25).astype(np.uint8), "PNG")
PICTURES = {
    "empty": write(COLOUR, b""),
    "one byte": write(COLOUR, b"\xff"),
    "text": write(COLOUR, b"not a picture"),
    "half a jpeg": write(COLOUR, JPEG[: len(JPEG) // 2]),
    "jpeg without its end": write(COLOUR, JPEG[:-40]),
    "half a png": write(DEPTH, PNG8[: len(PNG8) // 2]),
    "postscript": write(COLOUR, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n%%EndComments\n(x) run\n"),
    "gif": write(COLOUR, saved(picture(), "GIF")),
    "grey": write(COLOUR, saved(picture()[..., 0], "JPEG")),
    "print colours": write(COLOUR, saved(picture(), "JPEG", "CMYK")),
    "one pixel": write(COLOUR, saved(picture()[:1, :1], "PNG")),
    "another size": write(COLOUR, saved(picture()[:20, :30], "PNG")),
    "no pixel": write(COLOUR, png(0, 0, 3)),
    "fewer rows than said": write(COLOUR, png(WIDTH, HEIGHT, 3)),
    "body of another kind": write(COLOUR, png(WIDTH, HEIGHT, 3, b"no zlib")),
    "bomb of text": write(COLOUR, png(WIDTH, HEIGHT, 3, more=text_bomb())),
    "40 billion pixels": write(COLOUR, png(200_000, 200_000, 3)),
    "all that a png can claim": write(COLOUR, png(2**31 - 1, 2**31 - 1, 3)),
    "folder": replaced(COLOUR, Path.mkdir),
    "pipe": replaced(COLOUR, os.mkfifo),
    "endless file": link(COLOUR, "/dev/zero"),
    "link to a text": link(COLOUR, "/etc/passwd"),
    "link to nothing": link(COLOUR, "/nowhere"),
    "link to itself": link(COLOUR, "3.png.jpg"),
    "colour as depth": write(DEPTH, saved(picture(), "PNG")),
    "depth of one bit": write(DEPTH, saved(metres() > 4, "PNG")),
    "depth in float": write(DEPTH, saved(metres(), "TIFF")),
    "no depth": write(DEPTH, saved(np.zeros((HEIGHT, WIDTH), np.uint8), "PNG")),
    "negative depth": write(DEPTH, saved(np.full((HEIGHT, WIDTH), -5, np.int32), "TIFF")),
    "depth of another size": write(DEPTH, saved(np.full((HEIGHT, WIDTH + 1), 9, np.uint8), "PNG")),
    "huge depth": write(DEPTH, png(200_000, 200_000, 1)),
}


def row(*cells: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        rows = read_rows(root, "train")
        write_rows(root, "train", [*rows[:2], list(cells), *rows[3:]])

    return change


ROWS = {
    "one column": row(COLOUR),
    "three columns": row(COLOUR, DEPTH, DEPTH),
    "spaces": row("  ", " "),
    "nothing behind the comma": row(COLOUR, ""),
    "up": row("../secret.png", DEPTH),
    "up from within": row("data/../../../etc/passwd", DEPTH),
    "up in depth": row(COLOUR, "data/../../x.png"),
    "absolute": row("/etc/passwd", DEPTH),
    "absolute depth": row(COLOUR, "/etc/passwd"),
    "folder": row("data/nyu2_train", "data"),
    "home": row("~/a.png", "~/b.png"),
    "variable": row("$HOME/a.png", "${HOME}/b.png"),
    "address": row("https://example.org/a.png", "file:///etc/passwd"),
    "up of Windows": row("..\\..\\secret.png", DEPTH),
    "device of Windows": row("C:\\a.png", DEPTH),
    "control character": row("a\0b.png", DEPTH),
    "terminal code": row("\x1b[2Ja.png", DEPTH),
    "long name": row("x" * 300, DEPTH),
    "long path": row("/".join(["x"] * 4000), DEPTH),
    "long row": row("x" * 100_000),
    "mixed up": row(DEPTH, COLOUR),
    "other signs": row("größe/ß.png", DEPTH),
}


def content(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda root: list_file(root, "train").write_bytes(change(list_file(root, "train").read_bytes())) and None


LISTS = {
    "UTF-16": content(lambda text: text.decode().encode("utf-16")),
    "UTF-16 without a mark": content(lambda text: text.decode().encode("utf-16-le")),
    "UTF-32": content(lambda text: text.decode().encode("utf-32")),
    "Latin-1": content(lambda text: text + "größe.png,ß.png\n".encode("latin-1")),
    "zeros": content(lambda text: bytes(1000)),
    "zeros behind": content(lambda text: text + bytes(1000)),
    "a picture": content(lambda text: JPEG),
    "open quotation mark": content(lambda text: b'"' + text),
    "open quotation mark within": content(lambda text: text.replace(b",data", b',"data', 1)),
    "semicolons": content(lambda text: text.replace(b",", b";")),
    "tabs": content(lambda text: text.replace(b",", b"\t")),
    "names of columns": content(lambda text: b"image,depth\r\n" + text),
    "huge field": content(lambda text: text + b'"' + b"x" * 200_000 + b'",y\n'),
    "a comment": content(lambda text: b"# train\n" + text),
    "JSON": content(lambda text: b'[["a", "b"]]'),
    "empty": content(lambda text: b""),
    "empty lines": content(lambda text: b"\n\n\n"),
    "one row": content(lambda text: text.splitlines(True)[0]),
    "lists that are folders": replaced("data/nyu2_train.csv", Path.mkdir),
    "no list": lambda root: list_file(root, "train").unlink(),
}
SAME = {
    "byte order mark": content(lambda text: b"\xef\xbb\xbf" + text),
    "lines of Unix": content(lambda text: text.replace(b"\r\n", b"\n")),
    "lines of old Macs": content(lambda text: text.replace(b"\r\n", b"\r")),
    "empty lines between": content(lambda text: text.replace(b"\r\n", b"\r\n\r\n")),
    "no end of line at the end": content(lambda text: text.rstrip()),
    "spaces around": content(lambda text: text.replace(b",", b" , ")),
    "quoted": content(lambda text: b"".join(b'"%s","%s"\n' % tuple(line.split(b",")) for line in text.splitlines())),
}
INPUTS = 2 * (len(PICTURES) + len(ROWS)) + len(LISTS) + len(SAME) + 3 + 2 * EXAMPLES


@pytest.mark.parametrize("name", PICTURES)
def test_a_broken_picture_is_reported_by_file_and_row_within_seconds(tmp_path, name):
    root = kaggle(tmp_path / "kaggle")
    PICTURES[name](root)
    started = time.monotonic()
    message = refusal(lambda: packed(root, tmp_path))
    assert f"{root}/data/nyu2_train.csv row 3: " in message
    assert "3.png" in message
    assert not list((tmp_path / "packs").glob("*"))
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("name", ROWS)
def test_a_row_that_leads_nowhere_or_out_of_the_folder_is_reported(tmp_path, name):
    root = kaggle(tmp_path / "kaggle")
    ROWS[name](root)
    message = refusal(lambda: packed(root, tmp_path))
    assert f"{root}/data/nyu2_train.csv row 3: " in message
    assert message.isprintable()
    assert not list((tmp_path / "packs").glob("*"))


@pytest.mark.parametrize("name", [*PICTURES, *ROWS])
def test_any_of_them_is_skipped_and_counted_when_asked(tmp_path, name):
    root = kaggle(tmp_path / "kaggle")
    (PICTURES | ROWS)[name](root)
    pack = packed(root, tmp_path, PackSpec(input_size=32, skip_bad=True))
    assert pack.skipped == 1
    assert pack.size("train") + pack.size("val") == 14


@pytest.mark.parametrize("name", LISTS)
def test_a_list_that_is_no_csv_in_utf_8_is_reported(tmp_path, name):
    root = kaggle(tmp_path / "kaggle")
    LISTS[name](root)
    assert refusal(lambda: packed(root, tmp_path)).startswith(f"{root}/data/nyu2_train.csv")


@pytest.mark.parametrize("name", SAME)
def test_what_editors_and_systems_change_in_a_list_makes_no_difference(tmp_path, name):
    root = kaggle(tmp_path / "kaggle")
    before = packed(root, tmp_path).fingerprint
    SAME[name](root)
    assert packed(root, tmp_path).fingerprint == before


def test_links_that_the_user_made_are_followed_also_out_of_the_folder(tmp_path):
    root = kaggle(tmp_path / "kaggle")
    before = packed(root, tmp_path).fingerprint
    elsewhere = (root / "data" / "nyu2_train").rename(tmp_path / "disk")
    (root / "data" / "nyu2_train").symlink_to(elsewhere)
    assert packed(root, tmp_path).fingerprint == before


@pytest.mark.filterwarnings(
    "ignore::PIL.Image.DecompressionBombWarning"
)  # as the code does, whose filters pytest resets
@pytest.mark.parametrize("size", [(8000, 7000), (13_000, 13_000)])
def test_a_pair_of_pictures_too_large_to_decode_is_refused_unread(tmp_path, size):
    """Both below the limit of Pillow, which only warns or takes twice as much."""
    root = kaggle(tmp_path / "kaggle")
    (root / COLOUR).write_bytes(png(*size, 3))
    (root / DEPTH).write_bytes(png(*size, 1))
    assert size[0] * size[1] > MOST_PIXELS
    assert f"{size[0]} x {size[1]} pixels; expected at most 50 million" in refusal(lambda: packed(root, tmp_path))


@pytest.fixture(scope="module")
def frame(tmp_path_factory) -> Entry:
    folder = tmp_path_factory.mktemp("frame")
    return Entry("list.csv row 1", folder / "a.jpg", folder / "a.png", "a.jpg", "here", 1)


@given(place=st.integers(0, 4000), cut=st.integers(0, 4000), junk=st.binary(max_size=12), of_depth=st.booleans())
@generated(2 * EXAMPLES)
def test_a_picture_damaged_anywhere_is_read_or_reported(frame, place, cut, junk, of_depth):
    colour, depth = JPEG, PNG8
    if of_depth:
        depth = depth[: place % len(depth)] + junk + depth[min(place % len(depth) + len(junk) + cut % 7, len(depth)) :]
    else:
        colour = colour[: place % len(colour)] + junk + colour[place % len(colour) + len(junk) :]
        colour = colour[: max(len(colour) - cut % 300, 1)]
    frame.image.write_bytes(colour)
    frame.depth.write_bytes(depth)
    handled(lambda: read_frame("nyu-csv", frame, 32))
