"""Machines without a common folder share results through a URI: whole or not at all, whoever fails or races."""

import gzip
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from grid.storage import object_store as objects
from grid.storage.object_store import Objects
from grid.storage.remote import RESULT
from grid.storage.result_store import StageStore, write_record
from tests.grid.storage.made_up_results import RECORD, leftovers
from tests.grid.storage.remote_stores import content, put

ROOT = Path(__file__).resolve().parents[3]


def test_a_result_of_one_machine_is_fetched_by_another_with_the_same_bytes(machine):
    put(machine("a"), "ab12")
    b = machine("b")
    assert not b.has("ab12")  # a local question
    assert b.verify("ab12")
    assert b.has("ab12")
    for name in (RESULT, "network.pt", "figures/a.bin"):
        assert (b.path("ab12") / name).read_bytes() == (machine("a").path("ab12") / name).read_bytes()
    assert leftovers(b) == []
    assert not b.verify("cd34")


def test_a_claim_finds_what_another_machine_computed(machine):
    with machine("b").claim("ab12") as done:
        assert not done
    put(machine("a"), "ab12")
    with machine("b").claim("ab12") as done:
        assert done
    assert content(machine("b")) == b"weights"


def test_a_claim_uploads_what_is_only_here(machine, uri):
    alone = StageStore(machine("a").root)
    put(alone, "ab12")
    assert not machine("b").verify("ab12")
    with machine("a").claim("ab12") as done:
        assert done
    assert machine("b").verify("ab12")


def test_compressed_and_empty_files_arrive_as_they_are(machine):
    packed = gzip.compress(b"x" * 1000)
    with machine("a").writer("ab12") as folder:
        (folder / "table.csv.gz").write_bytes(packed)
        (folder / "empty").write_bytes(b"")
        write_record(folder, RECORD)
    assert machine("b").verify("ab12")
    assert (machine("b").path("ab12") / "table.csv.gz").read_bytes() == packed


def test_files_without_their_record_are_no_result(machine, uri):
    put(machine("a"), "ab12")
    remote = Objects(uri)
    record = remote.read(f"stages/ab12/{RESULT}")
    remote.write(f"stages/ab12/{RESULT}", b"")
    assert not machine("b").verify("ab12")
    remote.write(f"stages/ab12/{RESULT}", record)
    assert machine("b").verify("ab12")


def broken(uri: str, how: str) -> None:
    remote = Objects(uri)
    data = remote.read(f"stages/ab12/{RESULT}")
    record = json.loads(data)
    sha256 = record["files"]["network.pt"]
    if how == "a truncated file":
        remote.write(f"stages/ab12/{sha256}/network.pt", b"weig")
    elif how == "a flipped bit":
        remote.write(f"stages/ab12/{sha256}/network.pt", b"weighus")
    elif how == "a file that is not there":
        record["files"]["other.pt"] = "0" * 64
    elif how == "a record of another stage":
        record["id"] = "cd34"
    elif how == "a record that is a list":
        record = []
    elif how == "a file of no checksum":
        record["files"]["network.pt"] = "../../../x"
    elif how.startswith("a file named "):
        record["files"][how.removeprefix("a file named ")] = sha256
    data = json.dumps(record).encode()
    remote.write(f"stages/ab12/{RESULT}", data[:50] if how == "a truncated record" else data)


BREAKS = ["a truncated file", "a flipped bit", "a file that is not there", "a truncated record"]
BREAKS += ["a record of another stage", "a record that is a list", "a file of no checksum"]
BREAKS += ["a file named ../../escaped", "a file named /tmp/escaped", "a file named a/../../../b", "a file named "]


@pytest.mark.parametrize("how", BREAKS)
def test_what_is_broken_there_is_missing_and_the_next_push_puts_it_right(machine, uri, how, tmp_path):
    put(machine("a"), "ab12")
    broken(uri, how)
    b = machine("b")
    before = {path for path in tmp_path.rglob("*") if "shared" not in path.parts}
    assert not b.verify("ab12")
    after = {path for path in tmp_path.rglob("*") if "shared" not in path.parts}
    assert {path.relative_to(b.root).parts[0] for path in after - before} <= {"locks"}
    with b.claim("ab12") as done:
        assert not done
        put(b, "ab12")
    assert machine("c").verify("ab12")
    assert content(machine("c")) == b"weights"


def test_where_both_sides_have_a_whole_result_the_one_that_was_there_first_stays(machine):
    alone = StageStore(machine("b").root)
    put(alone, "ab12", b"second")
    put(machine("a"), "ab12", b"first")
    with machine("b").claim("ab12") as done:
        assert done
    assert content(machine("b")) == b"first"
    with machine("c").writer("ab12") as folder:
        put(machine("d"), "ab12", b"third")
        (folder / "network.pt").write_bytes(b"fourth")
        write_record(folder, RECORD)
    assert {content(machine(name)) for name in "abcd"} == {b"first"}
    assert leftovers(machine("b")) == []


def test_pushers_at_the_same_time_leave_one_whole_result(machine):
    gate = threading.Barrier(4)

    def push(name: str) -> None:
        store = machine(name)
        gate.wait()
        put(store, "ab12", name.encode() * 100_000)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(push, "abcd"))
    assert machine("e").verify("ab12")
    assert content(machine("e"))[:1] in b"abcd"
    for name in "abcd":
        assert machine(name).verify("ab12")


def test_processes_that_push_at_the_same_time_all_end_well(machine, uri, tmp_path):
    code = f"""
import sys, time
from pathlib import Path
from grid.storage.remote import Remote
from grid.storage.result_store import StageStore, write_record
root = Path(sys.argv[2], sys.argv[3])
store = StageStore(root, Remote(sys.argv[1], root))
with store.claim("ab12"), store.writer("ab12") as folder:
    (folder / "network.pt").write_text(sys.argv[3] * 1000)
    write_record(folder, {RECORD!r})
    (root / "ready").touch()
    while not Path(sys.argv[2], "go").exists():
        time.sleep(0.001)
assert store.verify("ab12")
"""
    racers = [subprocess.Popen([sys.executable, "-c", code, uri, tmp_path, name], cwd=ROOT) for name in "ab"]
    while not all((tmp_path / name / "ready").exists() for name in "ab"):
        assert all(racer.poll() is None for racer in racers)
    (tmp_path / "go").touch()
    assert [racer.wait(60) for racer in racers] == [0, 0]
    assert machine("c").verify("ab12")
    assert content(machine("c"))[:1] in b"ab"


def test_a_failed_push_keeps_the_result_here_and_the_next_claim_only_pushes(machine, monkeypatch, one_try):
    def refuse(*_):
        raise OSError("the line is dead")

    a = machine("a")
    with monkeypatch.context() as patch:
        patch.setattr(objects, "_put", refuse)
        with pytest.raises(OSError, match=r"writing stages/ab12/.*the line is dead"):
            put(a, "ab12")
    assert a.has("ab12")
    assert not machine("b").verify("ab12")
    with a.claim("ab12") as done:
        assert done
    assert machine("b").verify("ab12")


def test_the_plan_gets_and_gives_what_either_side_lacks(machine, uri):
    a, b = machine("a"), machine("b")
    for node_id in ("aa01", "aa02"):
        put(a, node_id)
    put(StageStore(b.root), "bb01")
    put(b, "ab12")
    broken(uri, "a truncated file")
    assert b.verify_all(["aa01", "aa02", "bb01", "ab12", "cc01", "aa01"]) == {"aa01", "aa02", "bb01", "ab12"}
    assert b.has("aa01")
    c = machine("c")
    assert c.verify_all(["bb01", "ab12"]) == {"bb01", "ab12"}
    assert not c.has("aa01")


def test_a_store_without_a_remote_never_loads_pyarrow(tmp_path):
    code = "import sys; from grid.storage.result_store import StageStore\n"
    code += "StageStore(sys.argv[1]).verify_all(['ab12'])"
    code += "\nassert not any(name.startswith('pyarrow') for name in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, check=False).returncode == 0
