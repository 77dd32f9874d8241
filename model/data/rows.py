"""The rows of an HDF5 dataset as ranges of bytes of its file, and reading them without HDF5.

HDF5 reads one row at a time under a lock and keeps Python's while it does. Packs are not compressed, so each picture
lies in the file in one piece: a copy by the kernel, in a thread that keeps nobody waiting.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

_HINT_BYTES = 128 * 1024
"""The least that Linux reads ahead at a hint, whatever the disk."""


@dataclass(frozen=True)
class Rows:
    """Where each row of a dataset starts in its file (``offsets``, int64 [N]), and what a row is."""

    offsets: np.ndarray
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def starts(self, indices: np.ndarray) -> np.ndarray:
        """Where the rows at ``indices`` start; raises IndexError for one that is outside."""
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(self.offsets):
            raise IndexError(f"index outside 0..{len(self.offsets) - 1}")
        starts: np.ndarray = self.offsets[indices]
        return starts


def rows_of(dataset: h5py.Dataset) -> Rows | None:
    """The rows of a dataset, or None where they do not each lie in one piece: compressed, cut, foreign or missing."""
    layout, shape = dataset.id.get_create_plist(), tuple(dataset.shape[1:])
    foreign = dataset.file.userblock_size or dataset.is_virtual or dataset.external
    if layout.get_nfilters() or foreign or not dataset.dtype.isnative:
        return None
    count, row_bytes = len(dataset), int(np.prod(shape)) * dataset.dtype.itemsize
    if dataset.chunks is None:
        start = dataset.id.get_offset()
        return None if start is None else Rows(start + row_bytes * np.arange(count), shape, dataset.dtype)
    if dataset.chunks[1:] != shape:
        return None
    each = dataset.chunks[0]
    chunks = np.full(-(-count // each), -1, np.int64)

    def found(chunk: Any) -> None:
        chunks[chunk.chunk_offset[0] // each] = chunk.byte_offset

    dataset.id.chunk_iter(found)
    if (chunks < 0).any():
        return None
    index = np.arange(count)
    return Rows(chunks[index // each] + row_bytes * (index % each), shape, dataset.dtype)


def read_rows(file: int, rows: Rows, indices: np.ndarray, out: np.ndarray) -> None:
    """Read the rows at ``indices`` of an open file into ``out`` (contiguous), in the order of their places.

    Raises IndexError for an index outside, and OSError where the file ends within a row.
    """
    starts, target = rows.starts(indices), out.reshape(-1).view(np.uint8).data
    for place in np.argsort(starts, kind="stable").tolist():
        _read(file, target[place * rows.row_bytes : (place + 1) * rows.row_bytes], int(starts[place]))


def _read(file: int, target: memoryview, start: int) -> None:
    while target:
        count = os.preadv(file, [target], start)
        if not count:
            raise OSError(f"ends at byte {start}, within a picture")
        target, start = target[count:], start + count


def hint_rows(file: int, rows: Rows, indices: np.ndarray) -> None:
    """Let the system begin to read the rows at ``indices``, all at the same time."""
    for start in np.sort(rows.starts(indices)).tolist():
        for _ in _hints(file, start, rows.row_bytes):
            pass


def hint_all(file: int, rows: Rows) -> Iterator[int]:
    """Let the system read all rows, in the order of the file; yields the bytes it has come by, again and again."""
    if len(rows.offsets):
        start = int(rows.offsets.min())
        yield from _hints(file, start, int(rows.offsets.max()) + rows.row_bytes - start)


def _hints(file: int, start: int, length: int) -> Iterator[int]:
    if hasattr(os, "posix_fadvise"):
        for done in range(0, length, _HINT_BYTES):
            os.posix_fadvise(file, start + done, min(_HINT_BYTES, length - done), os.POSIX_FADV_WILLNEED)
            yield done
