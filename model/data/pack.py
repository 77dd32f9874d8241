"""The pack: one HDF5 file that any source of pictures is turned into once, and that all training reads.

Groups ``train``, ``val``, ``test``; in each ``image`` uint8 [N, 3, S, S], ``depth`` uint16 [N, S/4, S/4] in
millimetres (clipped at 10 m), ``scene`` int32 [N], ``source`` utf-8 [N]. Packs of other tasks have an ``image`` of any
shape, and ``target``, or ``target.NAME`` for each of several, in place of ``depth``.
"""

import hashlib
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from model.data import nyu
from model.data.cache import CACHES
from model.data.frame import SPLITS, Item, Layout, Parts, depth_items, depth_layout
from model.data.packing import PackProgress, Source, write_pack
from model.data.rooms import render as rooms
from model.errors import InputError, require_fraction, require_one_of, require_range
from model.images import LARGEST_SIZE, MAX_DEPTH_MM
from model.tasks.facts import DEPTH_FACTS, TaskFacts
from model.tasks.nested import Nested

FORMAT = "depth-pack-1"
MOST_ROOMS = 1_000_000
TASK_FORMAT = "task-pack-1"
TARGET = "target"
_ROWS = {"scene": "int32", "source": "object"}
_ATTRIBUTES = {"fingerprint", "origin", "origin_detail", "input_size", "skipped"}
_TASK_ATTRIBUTES = {"task", "layout"}


@dataclass(frozen=True)
class PackSpec:
    """What a pack holds: input size in pixels, rooms to render, how data without splits are split, what to skip.

    ``test_fraction`` is for the folders of other tasks: NYUv2 has its test images. ``cache`` is where training keeps
    its pictures, which changes none of them.
    """

    input_size: int = 224
    rooms_train: int = 512
    rooms_val: int = 64
    rooms_test: int = 128
    val_fraction: float = 0.1
    test_fraction: float = 0.1
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
        for name in ("val_fraction", "test_fraction"):
            require_fraction(f"data.{name}", getattr(self, name))


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
    attributes = {"format": FORMAT, "input_size": spec.input_size, "output_size": spec.input_size // 4}
    return made(path, source, attributes, progress, fetch)


def made(
    path: Path,
    source: Source,
    attributes: Mapping[str, object],
    progress: PackProgress | None,
    fetch: Callable[[Path], object],
) -> Path:
    """The pack ``path``, which is written from its source where it is missing."""
    if not _is_pack(path):
        fetch(path)
    if _is_pack(path):
        return path
    described = {"origin": source.origin, "origin_detail": json.dumps(source.detail, sort_keys=True)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_pack(path, source, {**attributes, **described}, progress, _is_pack)
    except OSError as error:
        raise InputError(str(path.parent), f"cannot be written to ({error})", "a folder for packed data") from error
    return path


def _rooms(spec: PackSpec) -> Source:
    counts = {"train": spec.rooms_train, "val": spec.rooms_val, "test": spec.rooms_test}

    def items(split: str, first: int) -> Generator[Item | InputError]:
        return depth_items(rooms.render_split(split, counts[split], spec.input_size, first=first))

    detail = {"seed": rooms.SEED, "version": rooms.VERSION}
    layout = depth_layout(spec.input_size)
    return Source("rooms", "rooms", detail, [rooms.VERSION, rooms.SEED, counts], counts, layout, items)


def _nyu(data: Path, spec: PackSpec) -> Source:
    listing = nyu.list_frames(data, spec.val_fraction, spec.skip_bad)
    return Source(
        listing.origin,
        data.resolve().stem[:40],
        listing.detail,
        [nyu.VERSION, listing.identity, spec.val_fraction, spec.skip_bad],
        {split: len(listing.frames[split]) for split in SPLITS},
        depth_layout(spec.input_size),
        lambda split, first: depth_items(nyu.read_frames(listing, split, spec.input_size, first)),
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


def _size(group: h5py.Group, layout: Layout) -> int:
    """How many items a split holds; raises ValueError where it is not as ``new_half`` makes it."""
    count = len(group["scene"])
    for name, (kind, shape) in {**layout, **{name: (kind, ()) for name, kind in _ROWS.items()}}.items():
        if group[name].dtype != kind or group[name].shape != (count, *shape):
            found = f"{group[name].dtype} {group[name].shape}"
            raise ValueError(f"{group.name}/{name} is {found}, not {kind} {(count, *shape)}")
    return count


def _layout(attributes: Mapping[str, Any]) -> Layout:
    if attributes["format"] == FORMAT:
        return depth_layout(int(attributes["input_size"]))
    return {name: (dtype, tuple(shape)) for name, (dtype, shape) in json.loads(attributes["layout"]).items()}


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
                needed = {FORMAT: _ATTRIBUTES, TASK_FORMAT: _ATTRIBUTES | _TASK_ATTRIBUTES}
                if not isinstance(kind, str) or not self.attributes.keys() >= needed.get(kind, {kind}):
                    problem = f"format {kind!r} is not a pack of this version"
                    raise InputError(str(path), problem, FORMAT, "Delete the file.")
                self.layout = _layout(self.attributes)
                self.task = TaskFacts.read(self.attributes["task"]) if kind == TASK_FORMAT else DEPTH_FACTS
                self._sizes = {split: _size(file[split], self.layout) for split in SPLITS}
        except InputError:
            raise
        except Exception as error:  # h5py raises anything on broken bytes
            raise InputError(
                str(path), f"cannot be read as a pack ({error})", f"an HDF5 file of format {FORMAT}"
            ) from None

    @property
    def fingerprint(self) -> str:
        """sha256 over the arrays and scenes of all splits, and over the code of a task other than depth."""
        content = str(self.attributes["fingerprint"])
        if not self.task.identity:
            return content
        return hashlib.sha256(f"{content} {self.task.identity}".encode()).hexdigest()

    @property
    def origin(self) -> str:
        """Where it is from: rooms, nyu-csv, nyu-mat or nyu-fastdepth."""
        return str(self.attributes["origin"])

    @property
    def input_size(self) -> int:
        """Side of the pictures in pixels."""
        return int(self.attributes["input_size"])

    @property
    def input_shape(self) -> tuple[int, ...]:
        """C x H x W of an input."""
        return self.layout["image"][1]

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
        """Inputs as they are stored, N x C x H x W, uint8 for pictures: all of the split or those at ``indices``."""
        return torch.from_numpy(self._read(split, "image", indices))

    def targets(self, split: str, indices: Sequence[int] | None = None) -> Nested:
        """Targets of all inputs or those at ``indices``: a tensor, or a tuple or dict of them.

        Depth is a fraction of 10 m, float32 in [0, 1], N x 1 x S/4 x S/4.
        """
        names = [name for name in self.layout if name != "image"]
        return self.decoded({name: self._read(split, name, indices) for name in names})

    def decoded(self, arrays: Parts, empty: Callable[[tuple[int, ...]], Tensor] = torch.empty) -> Nested:
        """Targets from the arrays that hold them; ``empty`` gives memory of a shape for new float32 values."""
        if "depth" in self.layout:
            millimetres = arrays["depth"][:, None]
            fractions = empty(millimetres.shape)
            np.divide(millimetres, np.float32(MAX_DEPTH_MM), out=fractions.numpy())
            return fractions
        tensors = {name.removeprefix(TARGET).removeprefix("."): torch.from_numpy(one) for name, one in arrays.items()}
        if tensors.keys() == {""}:
            return tensors[""]
        return tuple(tensors.values()) if all(name.isdigit() for name in tensors) else tensors

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
