"""Servers of a storage by URI that fail, at the start and in the middle."""

import pickle
import threading
import time
from pathlib import Path

import pytest

from grid.storage import object_store as objects
from grid.storage.object_store import Objects, ObjectStoreError
from grid.storage.remote import Remote
from grid.storage.result_store import StageStore
from model.errors import InputError
from tests.grid.storage.remote_stores import content, put
from tests.grid.storage.s3_server import Door, free_port, s3_server, s3_uri

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
