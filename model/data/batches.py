"""Batches of a pack for a consumer that is faster than a file: gathered in threads, ahead of the training step.

Random access goes through the system's cache of the file, which all trials of a machine share: the pack is in memory
once, not once a process, and what other programs need they get. ``memory`` fills that cache in the order of the file
while the first batches are already there; ``disk`` relies on it for nothing, and asks for each batch well ahead. On
a GPU the pictures can stay as bytes, and a batch is then one gather there.
"""

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial

import h5py
import numpy as np
import torch
from torch import Tensor

from model.data.cache import chosen_cache
from model.data.pack import Pack
from model.data.rows import Rows, hint_all, hint_rows, mapped, read_rows, rows_of
from model.data.threads import in_order
from model.images import MAX_DEPTH_MM

Batch = tuple[Tensor, Tensor]
"""Images uint8 N x 3 x S x S, depth as a fraction of 10 m, float32 N x 1 x S/4 x S/4."""
_READERS = {"memory": 1, "disk": 4}
_AHEAD = {"memory": 4, "disk": 8}
"""Batches that are ready or being read."""
_FILLED_BY = 256
"""Pictures that go to the GPU at a time."""


class Feed:
    """The batches of one split of a pack on a device, equal and in equal order whatever the ``cache``.

    ``kept`` says which cache it is once batches were asked for. The file stays mapped as long as this lives.
    """

    def __init__(self, pack: Pack, split: str, device: torch.device, cache: str = "auto") -> None:
        self.pack, self.split, self.device, self.cache = pack, split, device, cache
        self.kept: str | None = None
        self._rows: tuple[Rows | None, Rows | None] | None = None
        self._file: Tensor | None = None
        self._whole: Batch | None = None
        self._filled = False

    def batches(self, order: Sequence[Tensor], passes: int = 1) -> Generator[Batch]:
        """The pictures at the indices of each item of ``order`` (int64 [N]); close it where it is left early.

        ``passes``: how often so many are read in the whole training, which decides whether it pays to keep them.
        What goes wrong in a thread is raised here: IndexError of an index, OSError of the file.
        """
        self._choose(passes * sum(map(len, order)))
        if self.kept == "gpu":
            images, depth = self._on_device()
            for indices in order:
                here = indices.to(self.device)
                yield images.index_select(0, here), depth.index_select(0, here)
            return
        with closing(self._read_ahead(order)) as ahead:
            yield from ahead

    def leave_gpu(self) -> bool:
        """Keep the pictures elsewhere from now on; False where they are."""
        if self.kept != "gpu":
            return False
        self._whole, self.kept = None, chosen_cache("auto", self._bytes, 1.0, torch.device("cpu"))
        return True

    def _choose(self, reads: int) -> None:
        if self.kept is None:
            passes = reads / max(self.pack.size(self.split), 1)
            self.kept = chosen_cache(self.cache, self._bytes, passes, self.device)

    @property
    def _bytes(self) -> int:
        """Of the whole split on a device."""
        side = self.pack.input_size
        return self.pack.size(self.split) * (3 * side**2 + 4 * (side // 4) ** 2)

    def _on_device(self) -> Batch:
        """The whole split on the device."""
        if self._whole is None:
            count, side = self.pack.size(self.split), self.pack.input_size
            images = torch.empty((count, 3, side, side), dtype=torch.uint8, device=self.device)
            depth = torch.empty((count, 1, side // 4, side // 4), device=self.device)
            with closing(self._read_ahead(torch.arange(count).split(_FILLED_BY))) as parts:
                for number, part in enumerate(parts):
                    for whole, piece in zip((images, depth), part, strict=True):
                        whole[number * _FILLED_BY :][: len(piece)].copy_(piece, non_blocking=True)
            self._whole = images, depth
        return self._whole

    def _read_ahead(self, order: Sequence[Tensor]) -> Generator[Batch]:
        """The batches on the device, read in threads."""
        kind = "memory" if self.kept == "memory" else "disk"
        fill = self._fill if kind == "memory" and not self._filled else None
        read, items = self._reader(), (indices.numpy() for indices in order)
        with closing(
            in_order(read, items, self._placed, readers=_READERS[kind], ahead=_AHEAD[kind], beside=fill)
        ) as batches:
            yield from batches

    def _placed(self, batch: Batch) -> Batch:
        images, depth = batch
        return images.to(self.device, non_blocking=True), depth.to(self.device, non_blocking=True)

    def _reader(self) -> Callable[[np.ndarray], Batch]:
        """What reads a batch: copies from the mapped file, or HDF5 where pictures do not lie in one piece."""
        images, depth = self._split_rows()
        if images is None or depth is None:
            return self._read_hdf5
        if self._file is None:
            self._file = mapped(self.pack.path, (images, depth))
        return partial(self._read_rows, images, depth, self._file)

    def _split_rows(self) -> tuple[Rows | None, Rows | None]:
        if self._rows is None:
            with h5py.File(self.pack.path, "r") as file:
                self._rows = rows_of(file[self.split]["image"]), rows_of(file[self.split]["depth"])
        return self._rows

    def _read_rows(self, images: Rows, depth: Rows, file: Tensor, indices: np.ndarray) -> Batch:
        count, side = len(indices), self.pack.input_size
        if self.kept != "memory":
            hint_rows(self.pack.path, (images, depth), indices)
        pictures, fractions = self._empty((count, 3, side, side), np.uint8), self._empty((count, 1, *depth.shape))
        millimetres = np.empty((count, 1, *depth.shape), np.uint16)
        read_rows(file, images, indices, pictures)
        read_rows(file, depth, indices, torch.from_numpy(millimetres))
        np.divide(millimetres, np.float32(MAX_DEPTH_MM), out=fractions.numpy())
        return pictures, fractions

    def _read_hdf5(self, indices: np.ndarray) -> Batch:
        return self.pack.images(self.split, indices.tolist()), self.pack.depth(self.split, indices.tolist())

    def _empty(self, shape: tuple[int, ...], dtype: type = np.float32) -> Tensor:
        """Memory to read into, pinned where a GPU copies from it; that of NumPy is never filled beforehand."""
        empty = torch.from_numpy(np.empty(shape, dtype))
        return torch.empty_like(empty, pin_memory=True) if self.device.type == "cuda" else empty

    def _fill(self, ended: threading.Event) -> None:
        """Have the system read the whole split into its cache."""
        images, _ = self._split_rows()
        if images is not None:
            for _ in hint_all(self.pack.path, images):
                if ended.is_set():
                    return
        self._filled = True
