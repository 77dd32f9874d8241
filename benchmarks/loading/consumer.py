"""How long a consumer that only waits is kept waiting by the pack, from memory and from disk, beside plain copies."""

import os
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from benchmarks.line import say
from model.data.batches import Feed
from model.data.pack import Pack
from model.data.rows import rows_of
from model.epochs import shuffled_batches

PICTURES, BATCH = 4032, 64
EPOCHS = 3
RATES = {3000: 5, 1000: 1}
"""Pictures a second of the consumer -> the largest share of its time that it may wait, in per cent."""
_BLOCK = 8 * 2**20
_CPU = torch.device("cpu")


def measure(pack: Pack, folder: Path, cores: int) -> None:
    """Print the figures for a pack of so many pictures, the given ones again and again."""
    pack = repeated(pack, folder / "many.h5", PICTURES)
    size = PICTURES * 3 * pack.input_size**2
    about = f"{PICTURES} pictures of {pack.input_size}, {size / 1e6:.0f} MB, batches of {BATCH}, {cores} cores"
    memory = Feed(pack, "train", _CPU, "memory")
    consume(memory, 0)  # once over: all of it is in the system's cache
    for rate, goal in RATES.items():
        waited = 100 * sum(consume(memory, epoch, rate) for epoch in range(EPOCHS)) / EPOCHS
        say(f"data_waiting_memory_{rate}", waited, "%", f"of a step that sleeps, {rate}/s; goal <= {goal}; {about}")
    say("data_memory", _rate(memory), "pictures/s", "a consumer that takes them at once, pages of the file in memory")
    say("data_copy", _copies(pack), "pictures/s", "limit: one core copies one batch after another from an array")
    say("data_hdf5", _by_hdf5(pack), "pictures/s", "read in the step, one by one through HDF5")
    del memory  # the system keeps the pages that somebody has mapped
    read = _forget(pack.path)
    rate = _rate(Feed(pack, "train", _CPU, "disk"))
    anew = 100 * (_read_bytes() - read) / size
    say("data_disk", rate, "pictures/s", f"pages of the file dropped before, {anew:.0f} % read anew; goal >= 1000")
    _forget(pack.path)
    say("data_disk_limit", _in_order(pack), "pictures/s", "limit: the file read in its order, dropped before")


def repeated(pack: Pack, path: Path, count: int) -> Pack:
    """A pack with ``count`` train pictures, those of ``pack`` again and again, written one by one as packs are."""
    with h5py.File(pack.path) as old, h5py.File(path, "w") as new:
        new.attrs.update(old.attrs)
        for split in ("val", "test"):
            old.copy(split, new)
        names = ("image", "depth", "scene", "source")
        group, parts = new.create_group("train"), {name: old["train"][name] for name in names}
        for name, part in parts.items():
            group.create_dataset(name, (count, *part.shape[1:]), part.dtype, chunks=part.chunks)
        values = {name: part[:] for name, part in parts.items()}
        for index in range(count):
            for name, value in values.items():
                group[name][index] = value[index % len(value)]
    return Pack(path)


def consume(feed: Feed, epoch: int, rate: float = float("inf")) -> float:
    """The share of an epoch's time in which a consumer of ``rate`` pictures a second waits for pictures."""
    waited, started = 0.0, time.perf_counter()
    asked = started
    with closing(feed.batches(_order(epoch))) as batches:
        for images, _ in batches:
            waited += time.perf_counter() - asked
            count = len(images)
            del images
            time.sleep(count / rate)
            asked = time.perf_counter()
    return waited / (time.perf_counter() - started)


def _order(epoch: int) -> list[Tensor]:
    return shuffled_batches(PICTURES, 0, BATCH, seed=epoch)


def _rate(feed: Feed) -> float:
    started = time.perf_counter()
    consume(feed, 0)
    return PICTURES / (time.perf_counter() - started)


def _seconds(work: Iterable[object]) -> float:
    started = time.perf_counter()
    for _ in work:
        pass
    return time.perf_counter() - started


def _copies(pack: Pack) -> float:
    images, into = pack.images("train"), torch.empty((BATCH, 3, pack.input_size, pack.input_size), dtype=torch.uint8)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds = _seconds(torch.index_select(images, 0, batch, out=into[: len(batch)]) for batch in _order(0))
    torch.set_num_threads(threads)
    return PICTURES / seconds


def _by_hdf5(pack: Pack) -> float:
    order = _order(0)[:16]
    seconds = _seconds((pack.images("train", one.tolist()), pack.targets("train", one.tolist())) for one in order)
    return sum(map(len, order)) / seconds


def _in_order(pack: Pack) -> float:
    with h5py.File(pack.path) as file:
        rows = rows_of(file["train/image"])
    assert rows is not None
    block = np.empty(_BLOCK, np.uint8)
    with open(pack.path, "rb", buffering=0) as file:
        file.seek(int(rows.offsets.min()))
        end = int(rows.offsets.max()) + rows.row_bytes
        return PICTURES / _seconds(iter(lambda: file.tell() < end and file.readinto(block), 0))


def _forget(path: Path) -> int:
    """Have the system drop the pages of a file; the bytes that this process has read from disks so far."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return _read_bytes()


def _read_bytes() -> int:
    """Bytes that this process had disks read, 0 where the system does not say."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))
