"""A result is in the store with its record and checksums; a broken one is as good as none."""

import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grid.storage.result_store import ORPHAN_AGE_S, RECORD_KEYS, RESULT, StageStore, write_record
from model.errors import InputError
from tests.grid.storage.made_up_results import RECORD, leftovers, put

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def store(tmp_path) -> StageStore:
    return StageStore(tmp_path)


# ---- one writer


def test_a_result_is_there_with_its_files_and_record(store):
    assert not store.has("ab12")
    with store.writer("ab12") as folder:
        (folder / "figures").mkdir()
        (folder / "figures" / "a.bin").write_bytes(b"abc")
        write_record(folder, RECORD)
        assert not store.has("ab12")
    assert store.has("ab12")
    assert (store.path("ab12") / "figures" / "a.bin").read_bytes() == b"abc"
    record = store.record("ab12")
    assert {key: record[key] for key in RECORD} == RECORD
    assert record["id"] == "ab12"
    assert record["host"]
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of "abc", FIPS 180-2
    assert record["files"] == {"figures/a.bin": sha256}
    assert leftovers(store) == []


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt(), SystemExit(1)], ids=repr)
def test_an_exception_leaves_nothing(store, error):
    def failing() -> None:
        with store.writer("ab12") as folder:
            (folder / "network.pt").write_bytes(b"half")
            write_record(folder, RECORD)
            raise error

    with pytest.raises(type(error)):
        failing()
    assert not store.has("ab12")
    assert list((store.root / "stages").iterdir()) == []


@pytest.mark.parametrize("key", RECORD_KEYS)
def test_a_record_without_one_of_its_keys_is_refused(store, key):
    with pytest.raises(ValueError, match=rf"lacks {key}"), store.writer("ab12") as folder:
        write_record(folder, {name: value for name, value in RECORD.items() if name != key})
    assert not store.has("ab12")


def test_a_stage_without_a_record_or_with_that_of_another_is_refused(store):
    with pytest.raises(ValueError, match="ab12: the stage wrote no record"), store.writer("ab12"):
        pass
    with pytest.raises(ValueError, match="ab12: the stage wrote the record of cd34"):
        with store.writer("ab12") as folder:
            write_record(folder, {**RECORD, "id": "cd34"})
    assert not store.has("ab12")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_figure_that_json_does_not_have_is_refused(store, value):
    with pytest.raises(ValueError, match="JSON"), store.writer("ab12") as folder:
        write_record(folder, {**RECORD, "metrics": {"sqnr_db": value}})
    assert not store.has("ab12")


@pytest.mark.parametrize("node_id", ["", ".", "..", "../ab", "a/b", ".tmp-a"])
def test_an_id_that_is_no_folder_name_is_refused(store, node_id):
    with pytest.raises(ValueError, match="is not a stage id"):
        store.has(node_id)
    with pytest.raises(ValueError, match="is not a stage id"), store.writer(node_id):
        pass


def test_a_record_that_is_not_there_is_an_error(store):
    with pytest.raises(FileNotFoundError, match="ab12"):
        store.record("ab12")


def test_a_storage_that_cannot_be_written_to_is_reported_to_the_user(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/results: cannot be written to .*--storage"):
        StageStore(tmp_path / "file" / "results")


def test_scratch_outlives_a_failure_and_goes_with_success(store):
    (store.scratch("ab12") / "epoch.pt").write_bytes(b"1")
    with pytest.raises(ValueError, match="no record"), store.writer("ab12"):
        pass
    assert (store.scratch("ab12") / "epoch.pt").read_bytes() == b"1"
    put(store, "ab12")
    assert not (store.root / "scratch" / "ab12").exists()


# ---- broken results and orphans


def broken(store: StageStore, how: str) -> None:
    folder = store.path("ab12")
    if how == "a flipped bit":
        (folder / "network.pt").write_bytes(b"weighus")
    elif how == "a truncated file":
        (folder / "network.pt").write_bytes(b"weig")
    elif how == "a missing file":
        (folder / "network.pt").unlink()
    elif how == "a file too many":
        (folder / "other.pt").write_bytes(b"")
    elif how == "a truncated record":
        (folder / RESULT).write_text((folder / RESULT).read_text()[:50])
    elif how == "no record":
        (folder / RESULT).unlink()
    elif how == "a record of another stage":
        (folder / RESULT).write_text(json.dumps({**store.record("ab12"), "id": "cd34"}))
    elif how == "a record that is a list":
        (folder / RESULT).write_text("[]")


BREAKS = ["a flipped bit", "a truncated file", "a missing file", "a file too many", "a truncated record"]
BREAKS += ["no record", "a record of another stage", "a record that is a list"]


@pytest.mark.parametrize("how", BREAKS)
def test_a_broken_result_is_moved_aside_and_missing_from_then_on(store, how):
    put(store, "ab12")
    assert store.verify("ab12")
    broken(store, how)
    assert not store.verify("ab12")
    assert not store.has("ab12")
    assert len(list((store.root / "quarantine").iterdir())) == 1
    put(store, "ab12")
    assert store.verify("ab12")


def test_a_broken_result_does_not_win_against_a_whole_one(store):
    put(store, "ab12", b"old")
    broken(store, "no record")
    put(store, "ab12", b"new")
    assert store.verify("ab12")
    assert (store.path("ab12") / "network.pt").read_bytes() == b"new"


def test_what_is_not_in_the_store_does_not_verify(store):
    assert not store.verify("ab12")
    assert list((store.root / "quarantine").iterdir()) == []


names = st.text("ab.", min_size=1, max_size=4).filter(lambda name: name.strip("."))


@given(files=st.dictionaries(names, st.binary(min_size=1, max_size=50), min_size=1, max_size=4), data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
def test_any_result_verifies_until_any_of_its_bytes_changes(store, files, data):
    node_id = f"n{time.time_ns()}"
    with store.writer(node_id) as folder:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        write_record(folder, RECORD)
    assert store.verify(node_id)
    name = data.draw(st.sampled_from(sorted(files)))
    place = data.draw(st.integers(0, len(files[name]) - 1))
    content = bytearray(files[name])
    content[place] ^= 1
    (store.path(node_id) / name).write_bytes(content)
    assert not store.verify(node_id)


def orphan(store: StageStore, node_id: str, age_s: float) -> Path:
    folder = store.root / "stages" / f".tmp-{node_id}-123-abcd"
    folder.mkdir()
    (folder / "half.pt").write_bytes(b"x")
    os.utime(folder, (time.time() - age_s, time.time() - age_s))
    return folder


def test_what_killed_writers_left_is_swept_after_a_day(store):
    old, young = orphan(store, "ab12", ORPHAN_AGE_S + 60), orphan(store, "cd34", ORPHAN_AGE_S - 60)
    put(store, "ef56")
    StageStore(store.root)
    assert not old.exists()
    assert young.exists()
    assert store.verify("ef56")


def test_what_is_old_but_still_being_computed_is_not_swept(store):
    old = orphan(store, "ab12", ORPHAN_AGE_S + 60)
    with store.claim("ab12"):
        StageStore(store.root)
        assert old.exists()
    StageStore(store.root)
    assert not old.exists()


def test_a_store_travels_to_another_process(store):
    put(store, "ab12")
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        assert pool.apply(store.has, ("ab12",))
