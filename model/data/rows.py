"""The rows of an HDF5 dataset as ranges of bytes of its file, and reading them without HDF5.

HDF5 reads one row at a time under a lock and keeps Python's while it does. Packs are not compressed, so each picture
lies in the file in one piece, and a batch is one call that copies all of its pieces without Python's lock. A call for
each piece would take the lock so often that the thread of the training, which wants it too, waits for all of them.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

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


def mapped(path: Path, datasets: Sequence[Rows]) -> Tensor:
    """The bytes of a file in memory of the system's cache, uint8; raises OSError where the rows go beyond its end."""
    if any(len(rows.offsets) and rows.offsets.max() + rows.row_bytes > path.stat().st_size for rows in datasets):
        raise OSError(f"{path} ends within a picture: it was cut off after it was opened")
    return torch.from_numpy(np.memmap(path, np.uint8, "c"))


def read_rows(file: Tensor, rows: Rows, indices: np.ndarray, out: Tensor) -> None:
    """Copy the rows at ``indices`` of a ``mapped`` file into ``out`` (contiguous); raises IndexError."""
    pieces = [file[start : start + rows.row_bytes] for start in rows.starts(indices).tolist()]
    torch.cat(pieces, out=out.view(torch.uint8).view(-1))


def hint_rows(path: Path, datasets: Sequence[Rows], indices: np.ndarray) -> None:
    """Let the system begin to read the rows at ``indices``, all at the same time; raises IndexError."""
    pieces = [(start, rows.row_bytes) for rows in datasets for start in rows.starts(indices).tolist()]
    for _ in _hints(path, sorted(pieces)):
        pass


def hint_all(path: Path, rows: Rows) -> Iterator[None]:
    """Let the system read all rows, in the order of the file; yields now and then."""
    if len(rows.offsets):
        start = int(rows.offsets.min())
        yield from _hints(path, [(start, int(rows.offsets.max()) + rows.row_bytes - start)])


def _hints(path: Path, pieces: Sequence[tuple[int, int]]) -> Iterator[None]:
    if hasattr(os, "posix_fadvise"):
        with open(path, "rb", buffering=0) as file:
            for start, length in pieces:
                for at in range(start, start + length, _HINT_BYTES):
                    os.posix_fadvise(file.fileno(), at, min(_HINT_BYTES, start + length - at), os.POSIX_FADV_WILLNEED)
                    yield
