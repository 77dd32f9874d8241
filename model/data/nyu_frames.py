"""One NYUv2 frame: read from its files, and shrunk to the sizes of the network.

Pictures shrink bilinearly with antialiasing, the whole view into the square. Depth is clipped to 10 m and
averaged over the area of each target pixel, over its *valid* part only (0, negative and NaN are missing), so
that holes do not pull depth towards zero; a target pixel without any valid part takes the nearest that has.
"""

import functools
import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.data.frame import Frame
from model.errors import InputError
from model.images import MAX_DEPTH_M

MOST_MISSING = 0.9
FORMATS = ("JPEG", "PNG", "PPM", "TIFF", "BMP", "WEBP")  # all that need no other program to be read
MOST_PIXELS = 50_000_000
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # MOST_PIXELS is less, and an error


@dataclass(frozen=True)
class Entry:
    """One frame on disk: who lists it, its files (one and the same for HDF5), its place, its frame number."""

    where: str
    image: Path
    depth: Path
    name: str
    scene: str
    number: int


def read_frame(origin: str, entry: Entry, size: int) -> Frame:
    """The frame at ``size`` x ``size``, its depth at a quarter; raises InputError where a file is broken."""
    try:
        shrunk, depth_m = _read_csv(entry, size) if origin == "nyu-csv" else _read_hdf5(origin, entry, size)
    except InputError:
        raise
    except Exception as error:  # decoders raise anything on broken bytes
        raise InputError(
            entry.where, f"{entry.name} cannot be read ({error})", "a whole file", "See --skip-bad."
        ) from None
    missing = 1 - np.count_nonzero(_valid(depth_m)) / depth_m.size
    if missing > MOST_MISSING:
        raise InputError(
            entry.where,
            f"{entry.name} has no depth in {missing:.0%} of its pixels",
            f"at most {MOST_MISSING:.0%}",
        )
    image = np.ascontiguousarray(np.asarray(shrunk).transpose(2, 0, 1))
    return Frame(image, shrink_depth(depth_m, size // 4), entry.scene, entry.name)


def _read_csv(entry: Entry, size: int) -> tuple[Image.Image, NDArray[np.floating]]:
    with Image.open(entry.image, formats=FORMATS) as picture, Image.open(entry.depth, formats=FORMATS) as depth:
        if picture.mode not in ("RGB", "RGBA", "P") or depth.mode not in ("L", "I;16", "I;16B", "I"):
            problem = f"{entry.image.name} is {picture.mode} and {entry.depth.name} is {depth.mode}"
            hint = "Are the columns mixed up?"
            raise InputError(entry.where, problem, "a colour picture, then a grey depth map of 8 or 16 bits", hint)
        _require_fit(entry, (picture.height, picture.width, 3), (depth.height, depth.width))
        scale = MAX_DEPTH_M / 255 if depth.mode == "L" else 1e-3
        colour = picture if picture.mode == "RGB" else picture.convert("RGB")  # convert copies
        return _shrink(colour, size), np.asarray(depth).astype(np.float32) * np.float32(scale)


def _read_hdf5(origin: str, entry: Entry, size: int) -> tuple[Image.Image, NDArray[np.floating]]:
    with h5py.File(entry.image, "r") as file:
        names = ("images", "depths") if origin == "nyu-mat" else ("rgb", "depth")
        pictures, depths = (file[name] for name in names)
        if pictures.dtype != np.uint8 or depths.dtype.kind != "f":
            problem = f"colour is {pictures.dtype} and depth is {depths.dtype} in {entry.name}"
            raise InputError(entry.where, problem, "uint8, and metres as floating point numbers")
        if origin == "nyu-mat":
            _require_fit(entry, pictures.shape[:0:-1], depths.shape[:0:-1])
            colour = Image.fromarray(pictures[entry.number].transpose(2, 1, 0))
            return _shrink(colour, size), depths[entry.number].T
        _require_fit(entry, (*pictures.shape[1:], *pictures.shape[:1]), depths.shape)
        return _shrink(Image.fromarray(pictures[:].transpose(1, 2, 0)), size), depths[:]


def _shrink(colour: Image.Image, size: int) -> Image.Image:
    return colour.resize((size, size), Image.Resampling.BILINEAR)


def _require_fit(entry: Entry, colour: tuple[int, ...], depth: tuple[int, ...]) -> None:
    """Before anything is decoded: one size, and one that fits into memory."""
    if len(colour) != 3 or colour[2] != 3 or depth != colour[:2] or 0 in colour:
        shapes = f"colour {colour} and depth {depth} of {entry.name} do not fit"
        raise InputError(entry.where, shapes, "H x W x 3 and H x W")
    if math.prod(depth) > MOST_PIXELS:
        problem = f"{entry.name} has {depth[1]} x {depth[0]} pixels"
        raise InputError(entry.where, problem, f"at most {MOST_PIXELS / 1e6:g} million", "Is it a picture of the data?")


def shrink_depth(depth_m: NDArray[np.floating], size: int) -> NDArray[np.float32]:
    """Depth H x W (metres) to size x size: clipped to 10 m, mean of the valid area, holes filled."""
    valid = _valid(depth_m)
    down, across = _areas(depth_m.shape[0], size), _areas(depth_m.shape[1], size)
    near = np.minimum(depth_m, MAX_DEPTH_M)
    if valid.all():
        share = _whole_share(*depth_m.shape, size)
    else:
        near, share = np.where(valid, near, 0), down @ valid.astype(np.float32) @ across.T
    shrunk = down @ near.astype(np.float32, copy=False) @ across.T / np.maximum(share, 1e-9)
    rows, columns = np.nonzero(share > 1e-6)
    for row, column in zip(*np.nonzero(share <= 1e-6), strict=True):
        nearest = np.argmin((rows - row) ** 2 + (columns - column) ** 2)
        shrunk[row, column] = shrunk[rows[nearest], columns[nearest]]
    result: NDArray[np.float32] = shrunk.astype(np.float32)
    return result


def _valid(depth_m: NDArray[np.floating]) -> NDArray[np.bool_]:
    valid: NDArray[np.bool_] = np.isfinite(depth_m) & (depth_m > 0)
    return valid


@functools.lru_cache(maxsize=8)
def _whole_share(height: int, width: int, size: int) -> NDArray[np.float32]:
    """The valid share of target pixels where all is valid: about 1, and the last bits are those of the same sums."""
    share: NDArray[np.float32] = _areas(height, size) @ np.ones((height, width), np.float32) @ _areas(width, size).T
    return share


@functools.lru_cache(maxsize=8)
def _areas(source: int, target: int) -> NDArray[np.float32]:
    """Target x source weights: which share of each target pixel a source pixel covers."""
    edges = np.arange(target + 1) * (source / target)
    pixels = np.arange(source)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    shares: NDArray[np.float32] = (np.maximum(overlap, 0) * (target / source)).astype(np.float32)
    return shares
