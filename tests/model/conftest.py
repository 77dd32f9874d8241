"""Packed pictures for trainings."""

import pytest

from model.data.pack import Pack
from tests.model.tiny_training import write


@pytest.fixture(scope="module")
def pack(tmp_path_factory) -> Pack:
    return Pack(write(tmp_path_factory.mktemp("data") / "pack.h5", {"train": 18, "val": 8, "test": 4}))
