"""Batches of a pack for a consumer that is faster than a file: gathered in threads, ahead of the training step.

Random access goes through the system's cache of the file, which all trials of a machine share: the pack is in memory
once, not once a process, and what other programs need they get. ``memory`` fills that cache in the order of the file
while the first batches are already there; ``disk`` relies on it for nothing, and asks for each batch well ahead. On
a GPU the pictures can stay as bytes, and a batch is then one gather there.
"""

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from functools import partial

import h5py
import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

from model.data.cache import chosen_cache
from model.data.pack import Pack
from model.data.rows import Rows, hint_all, hint_rows, mapped, read_rows, rows_of
from model.data.threads import in_order
from model.tasks.nested import Nested, each, leaves

Batch = tuple[Tensor, Nested]
"""Inputs and targets as ``Pack`` gives them."""
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
        self._rows: dict[str, Rows | None] | None = None
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
            whole = self._on_device()
            for indices in order:
                here = indices.to(self.device)
                yield (
                    each(partial(torch.Tensor.index_select, dim=0, index=here), whole[0]),
                    each(partial(torch.Tensor.index_select, dim=0, index=here), whole[1]),
                )
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
        image, *targets = self.pack.layout.values()
        decoded = 4 * sum(int(np.prod(shape)) for _, shape in targets)
        return self.pack.size(self.split) * (int(np.prod(image[1])) * np.dtype(image[0]).itemsize + decoded)

    def _on_device(self) -> Batch:
        """The whole split on the device."""
        if self._whole is None:
            count = self.pack.size(self.split)

            def place(piece: Tensor) -> Tensor:
                return torch.empty((count, *piece.shape[1:]), dtype=piece.dtype, device=self.device)

            whole: Batch | None = None
            with closing(self._read_ahead(torch.arange(count).split(_FILLED_BY))) as parts:
                for number, (images, targets) in enumerate(parts):
                    whole = whole or (place(images), each(place, targets))
                    pieces = zip(
                        (whole[0], *leaves(whole[1]).values()), (images, *leaves(targets).values()), strict=True
                    )
                    for held, piece in pieces:
                        held[number * _FILLED_BY :][: len(piece)].copy_(piece, non_blocking=True)
            assert whole is not None
            self._whole = whole
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
        images, targets = batch
        return self._moved(images), each(self._moved, targets)

    def _moved(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)

    def _reader(self) -> Callable[[np.ndarray], Batch]:
        """What reads a batch: copies from the mapped file, or HDF5 where items do not lie in one piece."""
        rows = {name: found for name, found in self._split_rows().items() if found is not None}
        if len(rows) < len(self.pack.layout):
            return self._read_hdf5
        if self._file is None:
            self._file = mapped(self.pack.path, list(rows.values()))
        return partial(self._read_rows, rows, self._file)

    def _split_rows(self) -> dict[str, Rows | None]:
        if self._rows is None:
            with h5py.File(self.pack.path, "r") as file:
                self._rows = {name: rows_of(file[self.split][name]) for name in self.pack.layout}
        return self._rows

    def _read_rows(self, rows: Mapping[str, Rows], file: Tensor, indices: np.ndarray) -> Batch:
        if self.kept != "memory":
            hint_rows(self.pack.path, list(rows.values()), indices)
        arrays = {}
        for name, one in rows.items():
            arrays[name] = self._empty((len(indices), *one.shape), one.dtype)
            read_rows(file, one, indices, arrays[name])
        images = arrays.pop("image")
        return images, self.pack.decoded({name: array.numpy() for name, array in arrays.items()}, self._empty)

    def _read_hdf5(self, indices: np.ndarray) -> Batch:
        return self.pack.images(self.split, indices.tolist()), self.pack.targets(self.split, indices.tolist())

    def _empty(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> Tensor:
        """Memory to read into, pinned where a GPU copies from it; that of NumPy is never filled beforehand."""
        empty = torch.from_numpy(np.empty(shape, dtype))
        return torch.empty_like(empty, pin_memory=True) if self.device.type == "cuda" else empty

    def _fill(self, ended: threading.Event) -> None:
        """Have the system read the whole split into its cache."""
        images = self._split_rows()["image"]
        if images is not None:
            for _ in hint_all(self.pack.path, images):
                if ended.is_set():
                    return
        self._filled = True
