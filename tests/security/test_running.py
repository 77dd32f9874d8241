"""A grid with a secret in its tracking URI, watched from outside: where it listens, what it shows and leaves."""

import os
import socket
import sys

import pytest

from tests.grid.tiny import ROOT
from tests.security.processes import family, listening
from tests.worked_example import SECRET, Example, example, watched

LOOPBACK = ("127.0.0.1", "::1")
FOUND = {
    "Ray's dashboard": "dashboard.py",
    "the driver": "runner.py",
    "a worker": "ray::",
    "the node": "raylet",
    "the controller": "gcs_server",
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Example:
    return example(tmp_path_factory)


def test_a_socket_that_is_open_to_others_would_be_seen():
    with socket.create_server(("0.0.0.0", 0)) as open_to_all, socket.create_server(("127.0.0.1", 0)) as ours:
        found = listening(family(os.getpid()))
        assert found["0.0.0.0", open_to_all.getsockname()[1]] == os.getpid()
        assert ours.getsockname() in found


@pytest.mark.slow
def test_a_grid_listens_on_this_machine_alone(scene):
    assert scene.seen.status == 0, scene.seen.output
    for name, part in FOUND.items():
        assert any(part in command for command in scene.seen.sockets.values()), f"{name} was not seen"
    assert len(scene.seen.sockets) >= 10
    assert {place: who for place, who in scene.seen.sockets.items() if place[0] not in LOOPBACK} == {}


@pytest.mark.slow
def test_no_secret_of_the_tracking_uri_is_printed_or_left_in_any_file(scene):
    assert SECRET not in scene.seen.output
    assert "password=***" in scene.seen.output
    files = [file for root in (scene.folder, scene.session) for file in root.rglob("*") if file.is_file()]
    names = {file.name for file in files}
    assert {"report.md", "report.html", "plan.json", "run.json", "results.csv", "tracked.db", "gcs_server.out"} <= names
    assert len([file for file in files if file.suffix in (".log", ".err", ".out")]) > 20
    assert [file for file in files if SECRET.encode() in file.read_bytes()] == []


@pytest.mark.slow
def test_no_process_but_the_one_that_was_given_the_secret_shows_it(scene):
    shown = [text for text in scene.seen.commands.values() if SECRET in text]
    assert len(scene.seen.commands) > 10
    assert all("runner.py" in text for text in shown)
    assert len(shown) == 1


@pytest.mark.slow
def test_the_pages_of_mlflow_are_served_on_this_machine_alone(scene):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = str(unused.getsockname()[1])
    command = [sys.executable, str(ROOT / "runner.py"), "--ui", port, "--storage", str(scene.folder)]
    seen = watched([*command, "--tracking-uri", scene.uri], scene.folder, {}, until=port)
    assert ("127.0.0.1", int(port)) in seen.sockets, seen.output
    assert f"http://127.0.0.1:{port}/#/experiments/1/runs" in seen.output
    assert b"MLflow" in seen.page
    assert {place: who for place, who in seen.sockets.items() if place[0] not in LOOPBACK} == {}
    assert SECRET not in seen.output
    assert all("runner.py" in text for text in seen.commands.values() if SECRET in text)
