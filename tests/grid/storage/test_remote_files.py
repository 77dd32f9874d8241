"""Files and folders of a storage by URI."""

import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from grid.storage.object_store import Objects
from grid.storage.remote import Remote
from tests.grid.storage.remote_stores import put
from tests.grid.tiny import ROOT


def test_a_file_is_uploaded_once_and_downloaded_once(machine, monkeypatch):
    a, b = machine("a"), machine("b")
    (a.root / "packs").mkdir()
    (a.root / "packs" / "rooms.h5").write_bytes(b"x" * 1000)
    transfers = []
    for name in ("upload", "download"):
        before = getattr(Objects, name)
        monkeypatch.setattr(Objects, name, lambda *args, b=before, n=name: transfers.append(n) or b(*args))
    for _ in range(2):
        a.remote.push_file("packs/rooms.h5")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(b.remote.pull_file, ["packs/rooms.h5"] * 4))
    assert found == [b.root / "packs" / "rooms.h5"] * 4
    assert found[0].read_bytes() == b"x" * 1000
    assert transfers == ["upload", "download"]
    (a.root / "packs" / "rooms.h5").write_bytes(b"y" * 1000)
    a.remote.push_file("packs/rooms.h5")
    assert b.remote.pull_file("packs/rooms.h5").read_bytes() == b"y" * 1000
    assert sorted(path.name for path in (b.root / "packs").iterdir()) == ["rooms.h5"]


def test_a_file_that_is_missing_or_broken_there_is_an_error_and_nothing_is_taken(machine, uri):
    a, b = machine("a"), machine("b")
    with pytest.raises(FileNotFoundError, match="packs/x is not there"):
        b.remote.pull_file("packs/x")
    (a.root / "packs").mkdir()
    (a.root / "packs" / "x").write_bytes(b"abc")
    a.remote.push_file("packs/x")
    sha256 = json.loads(Objects(uri).read("packs/x.json"))["sha256"]
    Objects(uri).write(f"packs/x.{sha256}", b"ab")
    with pytest.raises(OSError, match=r"packs/x\.[0-9a-f]+ is broken"):
        b.remote.pull_file("packs/x")
    assert list((b.root / "packs").iterdir()) == []


def test_the_folder_of_a_run_travels_and_only_what_changed_is_sent(machine, monkeypatch):
    a, b = machine("a"), machine("b")
    for name, text in {"run.json": "{}", "report.html": "old", "plots/a.png": "p", ".aside": "no"}.items():
        (a.root / "first" / name).parent.mkdir(parents=True, exist_ok=True)
        (a.root / "first" / name).write_text(text)
    a.remote.push_folder("first")
    (a.root / "first" / "report.html").write_text("new")
    sent = []
    before = Objects.upload
    monkeypatch.setattr(Objects, "upload", lambda *args: sent.append(args[-1]) or before(*args))
    a.remote.push_folder("first")
    assert sent == ["first/report.html"]
    assert b.remote.pull_folder("first")
    found = {path.relative_to(b.root).as_posix() for path in (b.root / "first").rglob("*") if path.is_file()}
    assert found == {"first/run.json", "first/report.html", "first/plots/a.png"}
    assert (b.root / "first" / "report.html").read_text() == "new"
    assert not b.remote.pull_folder("second")


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "", "a\\b", "a//b", "."])
def test_a_name_that_leads_out_of_the_folder_is_refused(machine, uri, name):
    remote = machine("a").remote
    for call in (remote.push_file, remote.pull_file, remote.push_folder, remote.pull_folder):
        with pytest.raises(ValueError, match="does not name a file inside"):
            call(name)
    if name:
        Objects(uri).write("run/.files.json", json.dumps({name: "0" * 64}).encode())
        assert not remote.pull_folder("run")


def test_a_remote_travels_to_another_process_as_its_uri(machine, uri, tmp_path, monkeypatch):
    put(machine("a"), "ab12")
    assert machine("a").verify_all(["ab12"])
    monkeypatch.setenv("QUANTIZATION_GRID_CACHE", str(tmp_path / "cache"))
    remote = Remote(uri)
    remote.check()
    (tmp_path / "remote").write_bytes(pickle.dumps(remote))
    code = "import pickle, sys; from grid.storage.result_store import StageStore; from pathlib import Path\n"
    code += "remote = pickle.loads(Path(sys.argv[1]).read_bytes()); store = StageStore(remote.root, remote)\n"
    code += "assert store.verify('ab12'); assert remote.root.is_relative_to(sys.argv[2]), remote.root"
    command = [sys.executable, "-c", code, tmp_path / "remote", tmp_path / "cache"]
    assert subprocess.run(command, cwd=ROOT, check=False, timeout=60).returncode == 0  # it ends cleanly, too
