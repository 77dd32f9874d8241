"""A small copy of NYUv2 in Kaggle's layout, and which of its frames are decoded."""

import pytest

from model.data import nyu
from tests.model.data.nyu_files import kaggle


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return kaggle(tmp_path_factory.mktemp("nyu") / "kaggle")


@pytest.fixture
def read(monkeypatch):
    """The names of the frames that are decoded."""
    names, original = [], nyu.read_frame

    def read_frame(origin, entry, size):
        names.append(entry.name)
        return original(origin, entry, size)

    monkeypatch.setattr(nyu, "read_frame", read_frame)
    return names
