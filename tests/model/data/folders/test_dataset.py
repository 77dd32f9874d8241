"""What a split is known by changes with its files, its classes and its size, and with nothing else."""

import json
import os

import pytest

from model.data.folders.classification import class_folders
from tests.model.data.folders.picture_files import noise, save


@pytest.fixture
def data(tmp_path):
    for split in ("train", "val", "test"):
        for number, name in enumerate(("ant", "cat")):
            save(tmp_path / split / name / "0.png", noise(seed=number))
    return tmp_path


def identities(data, size=32):
    return {split: json.dumps(items.identity) for split, items in class_folders(data, size).items()}


def rename(data):
    os.rename(data / "val/ant/0.png", data / "val/ant/1.png")


def grow(data):
    path = data / "val/ant/0.png"
    before = path.stat()
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def touch(data):
    os.utime(data / "val/ant/0.png", ns=(0, 1))


def add(data):
    save(data / "val/cat/1.png")


def move(data):
    (data / "val/cat").rename(data / "val/other")
    (data / "val/ant").rename(data / "val/cat")
    (data / "val/other").rename(data / "val/ant")


def test_the_identity_stays_while_nothing_changes(data):
    before = identities(data)
    (data / "notes.txt").write_text("not data")
    (data / "val/ant/notes.txt").write_text("not data")
    assert identities(data) == before
    assert len(set(before.values())) == 3


@pytest.mark.parametrize("change", [rename, grow, touch, add, move])
def test_the_identity_of_a_split_changes_with_any_of_its_files(data, change):
    before = identities(data)
    change(data)
    assert {split for split, text in identities(data).items() if text != before[split]} == {"val"}


def test_the_identity_of_all_splits_changes_with_a_class_and_with_the_size(data):
    before = identities(data)
    assert not set(identities(data, 64).values()) & set(before.values())
    save(data / "train/bee/0.png")
    assert not set(identities(data).values()) & set(before.values())
