"""A file that is written is the old one until it is the whole new one."""

import os
import threading

import pytest

from model.files import file_sha256, replacing, write_atomically


def test_a_file_stays_the_old_one_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "deep" / "plan.json"
    assert write_atomically(path, "alt ä") == path
    with replacing(path) as aside:
        aside.write_bytes(b"new")
        assert path.read_bytes() == "alt ä".encode()
        assert aside.parent == path.parent
        assert aside.name.startswith(".")
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["plan.json"]


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write_atomically(tmp_path / "plan.json", b"old")

    def fail() -> None:
        with replacing(path) as aside:
            aside.write_bytes(b"half")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        fail()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["plan.json"]


def test_a_writer_that_writes_nothing_is_an_error_and_leaves_the_old_file(tmp_path):
    path = write_atomically(tmp_path / "plan.json", b"old")
    with pytest.raises(FileNotFoundError), replacing(path):
        pass
    assert path.read_bytes() == b"old"


def test_threads_that_write_the_same_file_leave_one_of_theirs_whole(tmp_path):
    path, start = tmp_path / "plan.json", threading.Barrier(8)

    def write(number: int) -> None:
        start.wait()
        for _ in range(20):
            write_atomically(path, bytes([number]) * 10_000)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = path.read_bytes()
    assert len(content) == 10_000
    assert len(set(content)) == 1
    assert os.listdir(tmp_path) == ["plan.json"]


def test_a_name_as_long_as_a_file_system_takes_is_written(tmp_path):
    path = write_atomically(tmp_path / ("ä" * 125 + ".json"), b"{}")
    assert os.listdir(tmp_path) == [path.name]


def test_the_checksum_is_that_of_the_bytes(tmp_path):
    path = write_atomically(tmp_path / "file", b"abc")
    assert file_sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
