"""Batches of a pack: the same pictures in the same order from every cache and layout, and errors of its threads."""

import os
import threading
from contextlib import closing

import h5py
import numpy as np
import pytest
import torch

from model.data.batches import Feed
from model.data.pack import Pack
from model.epochs import shuffled_batches
from tests.model.tiny_training import write

CPU = torch.device("cpu")
COUNT = 41


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("pictures")]


def laid_out(source: Pack, path, **layout) -> Pack:
    """The same pack, its pictures written one by one in another layout."""
    with h5py.File(source.path) as old, h5py.File(path, "w") as new:
        new.attrs.update(old.attrs)
        for split in ("train", "val", "test"):
            group = new.create_group(split)
            for name in ("scene", "source"):
                old.copy(f"{split}/{name}", group)
            own = {
                name: layout | ({"chunks": (layout["rows"], *old[split][name].shape[1:])} if "rows" in layout else {})
                for name in ("image", "depth")
            }
            for name, options in own.items():
                options.pop("rows", None)
                group.create_dataset(name, old[split][name].shape, old[split][name].dtype, **options)
            for index in range(len(old[split]["image"])):
                for name in own:
                    group[name][index] = old[split][name][index]
    return Pack(path)


@pytest.fixture(scope="module")
def pack(tmp_path_factory) -> Pack:
    path = write(tmp_path_factory.mktemp("data") / "pack.h5", {"train": COUNT, "val": 8, "test": 4}, size=32)
    with h5py.File(path, "a") as file:  # the largest values of the type as well
        file["train/depth"][3] = 65_535
        file["train/depth"][4] = 10_000
    return Pack(path)


LAYOUTS = {
    "one piece": {},
    "a picture a chunk": {"rows": 1},
    "three pictures a chunk": {"rows": 3},
    "compressed": {"rows": 1, "compression": "gzip"},
    "with checksums": {"rows": 1, "fletcher32": True},
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("kept", ["gpu", "memory", "disk"])
def test_every_cache_and_layout_gives_the_pictures_of_the_pack_in_the_order_asked_for(pack, tmp_path, kept, layout):
    order = [*shuffled_batches(COUNT, 0, 4, seed=1), torch.tensor([7, 7, 0])]
    feed = Feed(laid_out(pack, tmp_path / "pack.h5", **layout), "train", CPU, kept)
    feed.kept = kept  # without a GPU "gpu" is as memory, and here the code of the GPU is to run
    for _ in range(2):  # epochs
        with closing(feed.batches(order)) as batches:
            got = list(batches)
        assert len(got) == len(order)
        for indices, (images, depth) in zip(order, got, strict=True):
            assert images.dtype == torch.uint8
            assert torch.equal(images, pack.images("train", indices.tolist()))
            assert torch.equal(depth, pack.targets("train", indices.tolist()))
    assert not readers()


@pytest.mark.parametrize("kept", ["memory", "disk"])
def test_batches_are_read_ahead_and_never_many_of_them(pack, kept, monkeypatch):
    feed, read, most = Feed(pack, "train", CPU, kept), [], 0
    original = feed._read_rows
    monkeypatch.setattr(feed, "_read_rows", lambda *given: read.append(1) or original(*given))
    order = torch.arange(COUNT).split(1)
    with closing(feed.batches(order)) as batches:
        for number, _ in enumerate(batches):
            most = max(most, len(read) - number)
            if number == 5:  # a slow step: the threads get as far as they may
                deadline = threading.Event()
                deadline.wait(0.2)
                ahead = len(read) - 6
    assert 3 <= ahead <= 9
    assert most <= 10
    assert len(read) == COUNT


def test_threads_and_the_file_are_gone_when_an_epoch_is_left_early(pack):
    files = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    feed = Feed(pack, "train", CPU, "disk")
    with closing(feed.batches(torch.arange(COUNT).split(2))) as batches:
        next(batches)
        assert readers()
    assert not readers()
    del feed
    assert files is None or len(os.listdir("/proc/self/fd")) == files


def test_an_index_outside_the_split_is_raised_where_the_batch_is_taken(pack):
    for kept in ("memory", "disk"):
        with (
            pytest.raises(IndexError, match=r"0\.\.40"),
            closing(Feed(pack, "train", CPU, kept).batches([torch.tensor([1]), torch.tensor([COUNT])])) as batches,
        ):
            list(batches)
    assert not readers()


def test_a_file_that_ends_within_a_picture_is_an_error_of_the_file(pack, tmp_path):
    short = tmp_path / "short.h5"
    short.write_bytes(pack.path.read_bytes())
    feed = Feed(Pack(short), "train", CPU, "disk")
    feed._split_rows()  # HDF5 finds no fault yet
    os.truncate(short, 2000)
    with pytest.raises(OSError, match=r"short\.h5 ends within a picture"):
        list(feed.batches([torch.arange(COUNT)]))
    assert not readers()


def test_the_batches_belong_to_the_consumer(pack):
    feed, order = Feed(pack, "train", CPU, "memory"), [torch.tensor([0, 1])] * 12
    got = []
    with closing(feed.batches(order)) as batches:
        for images, _ in batches:
            got.append(images.clone())
            images.zero_()
    assert all(torch.equal(one, pack.images("train", [0, 1])) for one in got)
    assert np.array_equal(pack.images("train", [0])[0], got[0][0])
