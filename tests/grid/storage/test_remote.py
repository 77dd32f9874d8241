"""Machines without a common folder share results through a URI: whole or not at all, whoever fails or races."""

import gzip
import json
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from grid.storage import object_store as objects
from grid.storage.object_store import Objects, ObjectStoreError
from grid.storage.remote import RESULT, Remote
from grid.storage.result_store import StageStore, write_record
from model.errors import InputError
from tests.grid.storage.s3_server import Door, free_port, s3_server, s3_uri

ROOT = Path(__file__).resolve().parents[3]
RECORD = {
    "stage": "calibrate",
    "settings": {"calibrate.images": 4},
    "inputs": [["network", "ef01"]],
    "metrics": {"sqnr_db": 24.5},
    "asserted": {"observers": 3},
    "history": [],
    "seconds": 1.5,
}
KINDS = ("file", "s3")


@pytest.fixture(scope="module")
def credentials():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "of-a-test")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@pytest.fixture(scope="module")
def server(credentials):
    with s3_server() as (port, _):
        yield port


@pytest.fixture(params=KINDS)
def uri(request, tmp_path) -> str:
    """An empty storage of either kind."""
    if request.param == "file":
        return f"file://{tmp_path}/shared"
    found = s3_uri(request.getfixturevalue("server"), f"bucket/{tmp_path.name}")
    Remote(found, tmp_path).check()
    return found


@pytest.fixture
def machine(uri, tmp_path):
    """Makes the store of a machine by its name: a folder of its own, and the URI."""
    return lambda name: StageStore(tmp_path / name, Remote(uri, tmp_path / name))


@pytest.fixture
def one_try(monkeypatch):
    monkeypatch.setattr(objects, "DELAYS_S", ())


def put(store: StageStore, node_id: str, content: bytes = b"weights") -> None:
    with store.writer(node_id) as folder:
        (folder / "figures").mkdir()
        (folder / "figures" / "a.bin").write_bytes(b"abc")
        (folder / "network.pt").write_bytes(content)
        write_record(folder, RECORD)


def content(store: StageStore) -> bytes:
    return (store.path("ab12") / "network.pt").read_bytes()


def leftovers(store: StageStore) -> list[str]:
    return [path.name for path in (store.root / "stages").iterdir() if path.name.startswith(".tmp-")]


# ---- stages


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


# ---- files and folders


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


# ---- failures of a server


@pytest.fixture
def door(server):
    door = Door(server)
    yield door
    door.close()


def behind(door: Door, tmp_path: Path, name: str) -> StageStore:
    root = tmp_path / name
    return StageStore(root, Remote(s3_uri(door.port, f"bucket/{tmp_path.name}"), root))


def test_a_line_that_is_cut_in_the_middle_of_a_push_leaves_no_result(door, tmp_path, one_try):
    a, b = behind(door, tmp_path, "a"), behind(door, tmp_path, "b")
    a.remote.check()
    door.cut_after = door.passed + 2_000_000
    with pytest.raises(OSError, match=r"ab12 is not uploaded: .*bucket.* failed after.*kept in .*stages/ab12"):
        put(a, "ab12", b"x" * 20_000_000)
    door.cut_after, door.shut = None, False
    assert a.has("ab12")
    assert not b.verify("ab12")
    with a.claim("ab12") as done:
        assert done
    assert b.verify("ab12")
    assert content(b) == b"x" * 20_000_000


def test_a_server_that_is_killed_in_the_middle_of_a_push_may_even_forget_all(credentials, tmp_path, one_try):
    port = free_port()
    with s3_server(port) as (_, process):
        door = Door(port)
        a, b = behind(door, tmp_path, "a"), behind(door, tmp_path, "b")
        a.remote.check()
        put(a, "cd34")
        door.delay_s = 0.01
        middle = door.passed + 2_000_000

        def kill() -> None:
            while door.passed < middle:
                time.sleep(0.001)
            process.kill()

        threading.Thread(target=kill, daemon=True).start()
        with pytest.raises(OSError, match="writing stages/ab12/"):
            put(a, "ab12", b"x" * 20_000_000)
    door.delay_s = 0.0
    with s3_server(port):
        a.remote.check()
        assert a.verify_all(["ab12", "cd34"]) == {"ab12", "cd34"}
        assert b.verify_all(["ab12", "cd34"]) == {"ab12", "cd34"}
    door.close()


def test_a_slow_server_is_waited_for(door, tmp_path):
    a, b = behind(door, tmp_path, "a"), behind(door, tmp_path, "b")
    a.remote.check()
    door.delay_s = 0.03
    put(a, "ab12", b"x" * 300_000)
    assert b.verify("ab12")


def test_a_failing_network_is_tried_again_a_few_times(uri, tmp_path, monkeypatch):
    calls = []

    def failing(system, path, chunks):
        calls.append(path)
        if len(calls) < 3:
            raise OSError("reset by peer")
        before(system, path, chunks)

    before = objects._put
    monkeypatch.setattr(objects, "_put", failing)
    monkeypatch.setattr(objects, "DELAYS_S", (0.0, 0.0, 0.0))
    Objects(uri).write("a", b"abc")
    assert len(calls) == 3
    assert Objects(uri).read("a") == b"abc"
    monkeypatch.setattr(objects, "_put", lambda *_: calls.append("") or (_ for _ in ()).throw(OSError("reset")))
    calls.clear()
    with pytest.raises(ObjectStoreError, match=r"writing a failed after 0 s \(reset\)") as caught:
        Objects(uri).write("a", b"abc")
    assert len(calls) == 4
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert (str(error), error.reason) == (str(caught.value), "reset")
        assert not error.refused
        assert not error.no_bucket


# ---- what is reported at the start


def refusal(uri: str, tmp_path: Path) -> str:
    with pytest.raises(InputError) as error:
        Remote(uri, tmp_path).check()
    return str(error.value)


def test_a_missing_bucket_is_reported_at_the_start(server, tmp_path):
    uri = s3_uri(server, "nowhere/x").replace("&allow_bucket_creation=true", "")
    text = refusal(uri, tmp_path)
    assert "--storage s3://nowhere/x" in text
    assert "its bucket does not exist" in text
    assert "allow_bucket_creation=true" in text
    Remote(s3_uri(server, "nowhere/x"), tmp_path).check()
    Remote(uri, tmp_path).check()


def test_wrong_credentials_are_reported_at_the_start_and_not_shown(credentials, tmp_path):
    with s3_server(INITIAL_NO_AUTH_ACTION_COUNT="0") as (port, _):
        uri = s3_uri(port, "bucket/x").replace("s3://", "s3://AKIDOFMINE:secret%2Fword@")
        text = refusal(uri, tmp_path)
    assert "may not be written to" in text
    assert "AWS_SECRET_ACCESS_KEY" in text
    for secret in ("AKIDOFMINE", "secret", "word"):
        assert secret not in text.replace("AWS_SECRET_ACCESS_KEY", "")


def test_a_server_that_is_not_there_is_reported_at_the_start(credentials, tmp_path, one_try):
    assert "cannot be used" in refusal(s3_uri(free_port(), "bucket/x"), tmp_path)


@pytest.mark.parametrize(
    ("uri", "reported"),
    [
        ("ftp://host/x", "Unrecognized filesystem type"),
        ("s3://", "names no bucket"),
        ("s3:///x", "Missing bucket name"),
        ("s3://bucket/x?secret_key=hush&access_key=hush", "Unexpected query parameter"),
        ("s3://hush:hush/hush@bucket/x", "Cannot parse URI"),
        ("gs://bucket/x?hush=1", "Unexpected query parameter"),
        ("file://host/x", "Unsupported hostname"),
    ],
)
def test_a_uri_that_cannot_be_used_is_reported_without_its_secrets(uri, reported, tmp_path):
    text = refusal(uri, tmp_path)
    assert reported in text
    assert "expected s3://bucket/prefix" in text
    assert "hush" not in text.replace("hush=", "").replace("'hush'", "")


def test_a_folder_that_cannot_be_written_to_is_reported_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be used" in refusal(f"file://{tmp_path}/file/x", tmp_path)
