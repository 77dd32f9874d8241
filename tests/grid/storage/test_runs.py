"""Where runs lie: ``runs/<name>``, under any name; those of the first version directly in the storage."""

import pytest

from grid.storage.result_store import StageStore
from grid.storage.run_lock import only_driver
from grid.storage.runs import checked_run_name, known_run, run_folder, run_names, share_run
from model.errors import InputError

STORE_NAMES = ("stages", "scratch", "locks", "quarantine", "packs", "logs", "runs")


def old_run(storage, name: str) -> None:
    (storage / name).mkdir(parents=True, exist_ok=True)
    (storage / name / "run.json").write_text("{}")


@pytest.mark.parametrize("name", STORE_NAMES)
def test_a_run_may_be_called_like_a_folder_of_the_store(tmp_path, name):
    StageStore(tmp_path)
    assert checked_run_name(name) == name
    assert run_folder(tmp_path, name) == tmp_path / "runs" / name
    with only_driver(tmp_path, name, new=True) as taken:
        assert taken == name, "the folder of the store is not a run"


@pytest.mark.parametrize("name", ["smoke-base", "runs"])
def test_a_run_of_the_first_version_is_listed_and_stays_in_its_place(tmp_path, name):
    StageStore(tmp_path)
    old_run(tmp_path, name)
    assert run_names(tmp_path) == [name]
    assert known_run("--report", name, str(tmp_path)) == tmp_path / name
    with only_driver(tmp_path, name, new=True) as taken:
        assert taken == f"{name}-2"


def test_old_and_new_runs_are_listed_together_and_the_new_place_wins(tmp_path):
    old_run(tmp_path, "old")
    for name in ("both", "runs/both", "runs/new"):
        old_run(tmp_path, name)
    assert run_names(tmp_path) == ["both", "new", "old"]
    assert run_folder(tmp_path, "both") == tmp_path / "runs" / "both"
    with pytest.raises(InputError, match=r"--sync: 'none' is not a run in .*; expected one of both, new, old\."):
        known_run("--sync", "none", str(tmp_path))


@pytest.mark.parametrize("place", ["runs/first", "first"])
def test_a_run_of_a_storage_by_uri_is_found_where_its_version_left_it(tmp_path, monkeypatch, place):
    """Another machine has its own folder: here, another cache."""
    uri = f"file://{tmp_path}/shared"
    monkeypatch.setenv("QUANTIZATION_GRID_CACHE", str(tmp_path / "a"))
    from grid.storage.remote import open_storage

    root, remote = open_storage(uri)
    old_run(root, place)
    share_run(root / place, root, remote)
    monkeypatch.setenv("QUANTIZATION_GRID_CACHE", str(tmp_path / "b"))
    expected = "one of first" if place.startswith("runs/") else "a run, and there is none yet"
    with pytest.raises(InputError, match=f"expected {expected}"):
        known_run("--report", "second", uri)
    there = known_run("--resume", "first", uri)
    assert there.relative_to(tmp_path / "b").as_posix().endswith(f"/{place}")
    assert (there / "run.json").is_file()
