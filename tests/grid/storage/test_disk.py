"""Whether a storage can be written to is found by writing to it."""

import errno
import os
import time
from pathlib import Path

import pytest

from grid.storage.disk import PROBE_BYTES, needed_mb, require_writable, storage_problem
from grid.storage.result_store import StageStore
from model.errors import InputError


def failing(number: int):
    def fsync(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    return fsync


def test_a_storage_that_takes_the_probe_has_no_problem_and_keeps_nothing_of_it(tmp_path):
    assert storage_problem(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_storage_that_fails_the_probe_is_named_with_the_reason_and_the_room_left(tmp_path, monkeypatch, number):
    monkeypatch.setattr("grid.storage.disk.os.fsync", failing(number))
    problem = storage_problem(tmp_path)
    assert problem is not None
    assert problem.startswith(f"{tmp_path} cannot be written to ({os.strerror(number)}; ")
    assert problem.endswith(" MB free)")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=r"cannot be written to .* expected a folder for results"):
        require_writable(tmp_path)


def test_a_storage_that_is_gone_is_a_problem_and_no_traceback(tmp_path):
    assert "No such file or directory" in str(storage_problem(tmp_path / "unmounted"))


def test_a_slow_storage_is_no_problem(tmp_path, monkeypatch):
    monkeypatch.setattr("grid.storage.disk.os.fsync", lambda descriptor: time.sleep(0.5))
    assert storage_problem(tmp_path) is None


def test_the_probe_is_larger_than_a_stage_of_the_default_network():
    float_network_bytes, prediction_bytes = 5.05e6, 654 * 56 * 56 * 4
    assert float_network_bytes + prediction_bytes < PROBE_BYTES


def test_the_room_that_stages_need_is_reported_by_those_that_are_there(tmp_path):
    store = StageStore(tmp_path)
    assert needed_mb(store, 3) == 15.0
    for name in ("aa", "bb"):
        folder = Path(store.root, "stages", name)
        folder.mkdir()
        (folder / "network.bin").write_bytes(bytes(2_000_000))
    assert needed_mb(store, 3) == pytest.approx(6.0)
