"""Packing goes on after a kill, alone, with the same outcome; what it cannot go on with is thrown away."""

import json
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import h5py
import pytest

from model.data.pack import prepare_pack
from tests.model.data.nyu_files import SPEC
from tests.model.data.pack_files import content, half_file, marked, marks_file

ROOT = Path(__file__).resolve().parents[3]
FRAMES, STOP_AT = 17, 9


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    return prepare_pack(str(data), tmp_path_factory.mktemp("packs"), SPEC)


@contextmanager
def stopped_packer(data, packs):
    """A process that packs ``data`` and has stopped halfway, with marks of what it has packed."""
    command = [sys.executable, "-m", "tests.model.data.packer", str(data), str(packs), str(STOP_AT)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "stopped\n"
            deadline = time.monotonic() + 20
            while marked(packs) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def killed_once(data, tmp_path_factory):
    packs = tmp_path_factory.mktemp("killed") / "packs"
    with stopped_packer(data, packs) as process:
        process.kill()
        process.wait()
    return packs


@pytest.fixture
def killed(killed_once, tmp_path):
    """The folder that a killed packer has left."""
    return Path(shutil.copytree(killed_once, tmp_path / "packs"))


def test_a_killed_packer_is_gone_on_with_and_nothing_is_decoded_twice(data, killed, undisturbed, read):
    done = marked(killed)
    assert 2 <= done <= STOP_AT
    path = prepare_pack(str(data), killed, SPEC)
    assert len(read) == FRAMES - done
    assert content(path) == content(undisturbed)
    assert list(killed.iterdir()) == [path]


def test_progress_goes_on_from_what_is_packed_after_it_was_checked(data, killed):
    calls, done = [], marked(killed)
    prepare_pack(str(data), killed, SPEC, lambda *call: calls.append(call))
    assert [call[0] for call in calls] == [*range(1, done + 1), *range(done + 1, FRAMES + 1)]
    assert {call[2] for call in calls[:done]} == {"checking what is packed"}
    assert calls[done][2].startswith("packing")


def test_what_came_after_the_last_whole_mark_is_packed_again(data, killed, undisturbed, read):
    text = marks_file(killed).read_bytes()
    lines = text.splitlines(keepends=True)
    done = json.loads(lines[-2]).get("done", 0)
    marks_file(killed).write_bytes(text[:-20])
    path = prepare_pack(str(data), killed, SPEC)
    assert len(read) == FRAMES - done
    assert content(path) == content(undisturbed)


def cut_half(packs):
    half_file(packs).write_bytes(half_file(packs).read_bytes()[:3000])


def change_a_pixel(packs):
    with h5py.File(half_file(packs), "r+") as file:
        file["train/image"][1, 0, 0, 0] ^= 1


def no_hdf5(packs):
    half_file(packs).write_bytes(b"something else")


def no_half(packs):
    half_file(packs).unlink()


def no_marks(packs):
    marks_file(packs).write_bytes(b"")


def change_header(key, value):
    def change(packs):
        first, *rest = marks_file(packs).read_bytes().splitlines(keepends=True)
        marks_file(packs).write_bytes(json.dumps(json.loads(first) | {key: value}).encode() + b"\n" + b"".join(rest))

    return change


def add_mark(mark):
    def change(packs):
        with marks_file(packs).open("a") as file:
            file.write(json.dumps(mark) + "\n")

    return change


BROKEN = {
    "cut": cut_half,
    "a pixel": change_a_pixel,
    "no HDF5": no_hdf5,
    "no half": no_half,
    "no marks": no_marks,
    "of another version": change_header("half pack", 0),
    "of other pictures": change_header("counts", {"train": 1, "val": 1, "test": 1}),
    "killed while it was finished": add_mark({"finishing": True}),
    "more marked than there are": add_mark({"done": 99, "named": {"train": [["a", "b"]] * 99}, "sha256": ""}),
    "foreign marks": add_mark({"something": "else"}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_half_pack_that_is_not_what_was_written_is_thrown_away(data, killed, undisturbed, read, name):
    BROKEN[name](killed)
    path = prepare_pack(str(data), killed, SPEC)
    assert len(read) == FRAMES
    assert content(path) == content(undisturbed)
    assert list(killed.iterdir()) == [path]


def waiting_packer(data, packs, said, made):
    """A thread that packs the same, after it has said that it waits."""

    def pack():
        made.append(prepare_pack(str(data), packs, SPEC, lambda *call: said.append(call)))

    thread = threading.Thread(target=pack)
    thread.start()
    deadline = time.monotonic() + 20
    while not said and time.monotonic() < deadline:
        time.sleep(0.01)
    return thread


def test_of_two_packers_at_once_one_waits_says_so_and_uses_what_the_other_has_packed(data, tmp_path, undisturbed, read):
    packs, said, made = tmp_path / "packs", [], []
    with stopped_packer(data, packs) as other:
        waiter = waiting_packer(data, packs, said, made)
        assert said[0][0] >= 2
        assert "waiting for another process" in said[0][2]
        other.stdin.write("\n")
        other.stdin.flush()
        waiter.join(30)
        assert other.wait(30) == 0
    assert not read
    assert content(made[0]) == content(undisturbed)
    assert list(packs.iterdir()) == made


def test_who_waits_goes_on_when_the_other_packer_is_killed(data, tmp_path, undisturbed, read):
    packs, said, made = tmp_path / "packs", [], []
    with stopped_packer(data, packs) as other:
        done = marked(packs)
        waiter = waiting_packer(data, packs, said, made)
        other.kill()
        waiter.join(30)
    assert len(read) == FRAMES - done
    assert content(made[0]) == content(undisturbed)
