"""The file of a pack while it is written, and how far it is good: it outlives a kill of its writer.

Beside ``NAME.h5`` lie two hidden files. ``.NAME.h5.half`` is HDF5 in which every picture has its place from the start,
so that writing one changes its own bytes alone. ``.NAME.h5.marks`` holds lines of JSON: what is packed, then again and
again what is on the disk by now, with the fingerprint so far. Its lock says that somebody is writing.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from model.data.frame import SPLITS, Layout, Parts
from model.data.rows import rows_of

VERSION = 2  # raise it when half a pack of before cannot be gone on with
_WAIT_S = 0.5
_MADE = {"finishing": True}
Mark = Mapping[str, Any]


@dataclass(frozen=True)
class HalfPack:
    """An open half-written pack; ``places`` are where the arrays of items start in it, int64 [N] by split and name."""

    path: Path
    file: int
    marks: BinaryIO
    places: Mapping[str, Mapping[str, NDArray[np.int64]]]

    def put(self, split: str, index: int, parts: Parts) -> None:
        """Write the arrays of item ``index`` of a split."""
        for name, part in parts.items():
            left, place = np.ascontiguousarray(part).reshape(-1).data.cast("B"), int(self.places[split][name][index])
            while left:
                written = os.pwrite(self.file, left, place)
                left, place = left[written:], place + written

    def get(self, split: str, index: int, parts: Parts) -> None:
        """Read what ``put`` has written into arrays of its shapes; raises EOFError where the file ends before."""
        for name, part in parts.items():
            if (
                os.preadv(self.file, [part.reshape(-1).data.cast("B")], int(self.places[split][name][index]))
                != part.nbytes
            ):
                raise EOFError(f"{self.path.name} ends within a picture")

    def mark(self, mark: Mark) -> None:
        """Note ``mark`` when all that was put before is on the disk."""
        os.fdatasync(self.file)
        self.marks.write(json.dumps(mark).encode() + b"\n")
        self.marks.flush()
        os.fsync(self.marks.fileno())

    def close(self) -> None:
        """Close the file; what is in it stays."""
        os.close(self.file)

    def finish(self, names: Mapping[str, list[tuple[int, str]]], attributes: Mapping[str, object]) -> None:
        """Write the scene and source of every picture and the attributes, cut what was left out, and name the file."""
        self.mark(_MADE)  # from here on it cannot be gone on with
        with h5py.File(_half(self.path), "r+") as file:
            for split, named in names.items():
                group, count = file[split], len(named)
                for name in self.places[split]:
                    group[name].resize(count, axis=0)
                chunks = (min(count, 4096),)
                scenes = np.array([scene for scene, _ in named], np.int32)
                group.create_dataset("scene", data=scenes, chunks=chunks)
                sources = [source for _, source in named]
                group.create_dataset("source", data=sources, dtype=h5py.string_dtype("utf-8"), chunks=chunks)
            file.attrs.update(attributes)
        os.fsync(self.file)
        os.replace(_half(self.path), self.path)


@contextlib.contextmanager
def only_writer(path: Path, waiting: Callable[[int], None]) -> Iterator[BinaryIO]:
    """Hold the marks of the pack ``path``, open to read and append, as one process at a time can.

    While another one has them, ``waiting`` is told again and again how many pictures it has packed.
    """
    marks = _marks(path)
    while True:
        with marks.open("a+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lines, _ = _read(file)
                waiting(int(lines[-1].get("done", 0)) if lines else 0)
                time.sleep(_WAIT_S)
                continue
            try:
                if _is_at(file, marks):  # else its last holder has removed it, and others may hold its successor
                    yield file
                    return
            finally:
                if not _half(path).exists() and _is_at(file, marks):
                    marks.unlink()
                fcntl.flock(file, fcntl.LOCK_UN)  # closing is not enough while a forked child has the file open


def old_half(path: Path, marks: BinaryIO, header: Mark) -> tuple[HalfPack, list[Mark]] | None:
    """The half pack that a writer of the same ``header`` has left, and its marks; None where it is of no use."""
    lines, length = _read(marks)
    if lines[:1] != [header] or lines[-1] == _MADE:
        return None
    try:
        places = _places(_half(path), header["layout"])
        half = HalfPack(path, os.open(_half(path), os.O_RDWR), marks, places)
    except Exception:  # h5py raises anything on broken bytes
        return None
    marks.truncate(length)
    return half, lines[1:]


def new_half(path: Path, marks: BinaryIO, header: Mark, counts: Mapping[str, int], layout: Layout) -> HalfPack:
    """An empty half pack for ``counts`` items of this layout by split, in place of any other."""
    discard(path, marks)
    placed = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    placed.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    placed.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5py.File(_half(path), "w") as file:
        for split, count in counts.items():
            for name, (kind, shape) in layout.items():
                file.create_dataset(f"{split}/{name}", (count, *shape), kind, chunks=(1, *shape), dcpl=placed)
    half = HalfPack(path, os.open(_half(path), os.O_RDWR), marks, _places(_half(path), layout))
    half.mark(header)
    return half


def discard(path: Path, marks: BinaryIO) -> None:
    """Remove what is half written."""
    marks.truncate(0)
    _half(path).unlink(missing_ok=True)


def written_bytes(path: Path) -> int:
    """What a half pack takes on the disk by now."""
    return _half(path).stat().st_blocks * 512 if _half(path).exists() else 0


def sweep(path: Path, older_than_s: float) -> None:
    """Remove what killed writers of other packs have left in the folder, and nobody has gone on with since."""
    for left in path.parent.glob(".*.h5.*"):
        with contextlib.suppress(OSError):
            if left not in (_half(path), _marks(path)) and time.time() - left.stat().st_mtime > older_than_s:
                left.unlink()


def _half(path: Path) -> Path:
    return path.with_name(f".{path.name}.half")


def _marks(path: Path) -> Path:
    return path.with_name(f".{path.name}.marks")


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _read(marks: BinaryIO) -> tuple[list[Mark], int]:
    """The whole lines before the first that a kill has cut, and their length in bytes."""
    lines: list[Mark] = []
    length = 0
    text = os.pread(marks.fileno(), os.fstat(marks.fileno()).st_size, 0)
    for line in text.splitlines(keepends=True):
        try:
            mark = json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n") or not isinstance(mark, dict):
            break
        lines.append(mark)
        length += len(line)
    return lines, length


def _places(half: Path, names: Iterable[str]) -> dict[str, dict[str, NDArray[np.int64]]]:
    """Where in the file each array of each item has its bytes; raises ValueError where one has no place."""
    places: dict[str, dict[str, NDArray[np.int64]]] = {split: {} for split in SPLITS}
    with h5py.File(half, "r") as file:
        for split, found in places.items():
            for name in names:
                rows = rows_of(file[split][name])
                if rows is None:
                    raise ValueError(f"{half}: {split}/{name} is not whole")
                found[name] = rows.offsets
    return places
