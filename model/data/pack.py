"""The pack: one HDF5 file that any source of pictures is turned into once, and that all training reads.

Groups ``train``, ``val``, ``test``; in each ``image`` uint8 [N, 3, S, S], ``depth`` uint16 [N, S/4, S/4] in
millimetres (clipped at 10 m), ``scene`` int32 [N], ``source`` utf-8 [N].
"""

import hashlib
import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from model.data import nyu
from model.data.cache import CACHES
from model.data.frame import SPLITS, Frame
from model.data.packing import PackProgress, Source, write_pack
from model.data.rooms import render as rooms
from model.errors import InputError, require_one_of, require_range
from model.images import LARGEST_SIZE, MAX_DEPTH_MM

FORMAT = "depth-pack-1"
MOST_ROOMS = 1_000_000
_LAYOUT = {"image": "uint8", "depth": "uint16", "scene": "int32", "source": "object"}
_ATTRIBUTES = {"fingerprint", "origin", "origin_detail", "input_size", "skipped"}


@dataclass(frozen=True)
class PackSpec:
    """What a pack holds: input size in pixels, rooms to render, how NYUv2 is split, what to skip.

    ``cache`` is where training keeps its pictures, which changes none of them.
    """

    input_size: int = 224
    rooms_train: int = 512
    rooms_val: int = 64
    rooms_test: int = 128
    val_fraction: float = 0.1
    skip_bad: bool = False
    cache: str = "auto"

    def __post_init__(self) -> None:
        require_one_of("data.cache", self.cache, CACHES)
        require_range("data.input_size", self.input_size, 32, LARGEST_SIZE)
        if self.input_size % 32:
            value = repr(self.input_size)
            raise InputError("data.input_size", "does not fit the strides", "a multiple of 32", value=value)
        for name in ("rooms_train", "rooms_val", "rooms_test"):
            require_range(f"data.{name}", getattr(self, name), 1, MOST_ROOMS)
        if not 0 < self.val_fraction < 1:
            value = repr(self.val_fraction)
            raise InputError("data.val_fraction", "is out of range", "above 0, below 1", value=value)


def prepare_pack(
    data: str,
    folder: Path,
    spec: PackSpec,
    progress: PackProgress | None = None,
    fetch: Callable[[Path], object] = lambda path: None,
) -> Path:
    """The pack of ``data`` ("rooms" or a path in an NYUv2 layout) in ``folder``, which is written where it is missing.

    What a killed run has packed stays packed. ``fetch`` may bring the pack from elsewhere first: its name is the same
    everywhere, but another processor may render a value differently in its last bit, and then the fingerprint is
    another one. Raises InputError where the source is missing, is none of the known layouts, or holds broken frames.
    """
    source = _rooms(spec) if data == "rooms" else _nyu(Path(data), spec)
    key = json.dumps([FORMAT, spec.input_size, source.origin, source.identity])
    path = folder / f"{source.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.h5"
    if not _is_pack(path):
        fetch(path)
    if _is_pack(path):
        return path
    attributes = {
        "format": FORMAT,
        "input_size": spec.input_size,
        "output_size": spec.input_size // 4,
        "origin": source.origin,
        "origin_detail": json.dumps(source.detail, sort_keys=True),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_pack(path, source, spec.input_size, attributes, progress, _is_pack)
    except OSError as error:
        raise InputError(str(folder), f"cannot be written to ({error})", "a folder for packed data") from error
    return path


def _rooms(spec: PackSpec) -> Source:
    counts = {"train": spec.rooms_train, "val": spec.rooms_val, "test": spec.rooms_test}

    def frames(split: str, first: int) -> Generator[Frame | InputError]:
        yield from rooms.render_split(split, counts[split], spec.input_size, first=first)

    detail = {"seed": rooms.SEED, "version": rooms.VERSION}
    return Source("rooms", "rooms", detail, [rooms.VERSION, rooms.SEED, counts], counts, frames)


def _nyu(data: Path, spec: PackSpec) -> Source:
    listing = nyu.list_frames(data, spec.val_fraction, spec.skip_bad)
    return Source(
        listing.origin,
        data.resolve().stem[:40],
        listing.detail,
        [nyu.VERSION, listing.identity, spec.val_fraction, spec.skip_bad],
        {split: len(listing.frames[split]) for split in SPLITS},
        lambda split, first: nyu.read_frames(listing, split, spec.input_size, first),
        listing.note,
        listing.skipped,
        spec.skip_bad,
    )


def _is_pack(path: Path) -> bool:
    try:
        Pack(path)
    except InputError:
        return False
    return True


def _size(group: h5py.Group, input_size: int) -> int:
    """How many pictures a split holds; raises ValueError where it is not as ``_empty_group`` makes it."""
    count = len(group["scene"])
    sides = {"image": (3, input_size, input_size), "depth": (input_size // 4, input_size // 4)}
    for name, kind in _LAYOUT.items():
        shape = (count, *sides.get(name, ()))
        if group[name].dtype != kind or group[name].shape != shape:
            raise ValueError(f"{group.name}/{name} is {group[name].dtype} {group[name].shape}, not {kind} {shape}")
    return count


class Pack:
    """Reads a pack; the file is open only during a call, so that instances may cross processes.

    Raises InputError where the file is missing or is not a pack.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            with h5py.File(self.path, "r") as file:
                self.attributes = {name: file.attrs[name] for name in file.attrs}
                kind = self.attributes.get("format")
                if not isinstance(kind, str) or kind != FORMAT or not self.attributes.keys() >= _ATTRIBUTES:
                    problem = f"format {kind!r} is not a pack of this version"
                    raise InputError(str(path), problem, FORMAT, "Delete the file.")
                self._sizes = {split: _size(file[split], self.input_size) for split in SPLITS}
        except InputError:
            raise
        except Exception as error:  # h5py raises anything on broken bytes
            raise InputError(
                str(path), f"cannot be read as a pack ({error})", f"an HDF5 file of format {FORMAT}"
            ) from None

    @property
    def fingerprint(self) -> str:
        """sha256 over the pictures, depths and scenes of all splits."""
        return str(self.attributes["fingerprint"])

    @property
    def origin(self) -> str:
        """Where it is from: rooms, nyu-csv, nyu-mat or nyu-fastdepth."""
        return str(self.attributes["origin"])

    @property
    def input_size(self) -> int:
        """Side of the pictures in pixels."""
        return int(self.attributes["input_size"])

    @property
    def skipped(self) -> int:
        """How many bad frames were left out."""
        return int(self.attributes["skipped"])

    def size(self, split: str) -> int:
        """How many pictures a split holds."""
        if split not in self._sizes:
            raise InputError(str(self.path), f"split {split!r} is unknown", options=SPLITS)
        return self._sizes[split]

    def images(self, split: str, indices: Sequence[int] | None = None) -> Tensor:
        """Pictures as uint8, N x 3 x S x S, all of the split or those at ``indices`` in their order."""
        return torch.from_numpy(self._read(split, "image", indices))

    def depth(self, split: str, indices: Sequence[int] | None = None) -> Tensor:
        """Depth as a fraction of 10 m, float32 in [0, 1], N x 1 x S/4 x S/4."""
        millimetres = self._read(split, "depth", indices)
        return torch.from_numpy(millimetres.astype(np.float32) / np.float32(MAX_DEPTH_MM))[:, None]

    def scenes(self, split: str) -> Tensor:
        """The scene number of every picture, int32 [N]."""
        return torch.from_numpy(self._read(split, "scene", None))

    def _read(self, split: str, name: str, indices: Sequence[int] | None) -> np.ndarray:
        size = self.size(split)
        with h5py.File(self.path, "r") as file:
            dataset = file[split][name]
            if indices is None:
                whole: np.ndarray = dataset[:]
                return whole
            wanted = np.asarray(indices, dtype=np.int64)
            if len(wanted) and (wanted.min() < 0 or wanted.max() >= size):
                raise IndexError(f"{self.path}: index outside 0..{size - 1} of {split}")
            read = np.empty((len(wanted), *dataset.shape[1:]), dataset.dtype)
            for row in np.argsort(wanted, kind="stable"):
                read[row] = dataset[int(wanted[row])]
            return read
