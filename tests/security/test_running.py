"""A grid with a secret in its tracking URI, watched from outside: where it listens, what it shows and leaves."""

import os
import socket
import sys
import urllib.request

from tests.grid.tiny import ROOT
from tests.runner.story import SECRET, Watched, watched
from tests.security.processes import family, listening

LOOPBACK = ("127.0.0.1", "::1")
FOUND = {
    "Ray's dashboard": "dashboard.py",
    "the driver": "runner.py",
    "a worker": "ray::",
    "the node": "raylet",
    "the controller": "gcs_server",
}


def test_a_socket_that_is_open_to_others_would_be_seen():
    with socket.create_server(("0.0.0.0", 0)) as open_to_all, socket.create_server(("127.0.0.1", 0)) as ours:
        found = listening(family(os.getpid()))
        assert found["0.0.0.0", open_to_all.getsockname()[1]] == os.getpid()
        assert ours.getsockname() in found


def test_a_grid_listens_on_this_machine_alone(story):
    assert story.resume.status == 0, story.resume.output
    for name, part in FOUND.items():
        assert any(part in command for command in story.resume.sockets.values()), f"{name} was not seen"
    for seen in (story.first, story.resume):
        assert len(seen.sockets) >= 10
        assert {place: who for place, who in seen.sockets.items() if place[0] not in LOOPBACK} == {}


def test_no_secret_of_the_tracking_uri_is_printed_or_left_in_any_file(story):
    for seen in (story.first, story.resume):
        assert SECRET not in seen.output
        assert "password=***" in seen.output
    files = [file for root in (story.at.folder, story.session) for file in root.rglob("*") if file.is_file()]
    names = {file.name for file in files}
    assert {"report.md", "report.html", "plan.json", "run.json", "results.csv", "tracked.db", "gcs_server.out"} <= names
    assert len([file for file in files if file.suffix in (".log", ".err", ".out")]) > 20
    assert [file for file in files if SECRET.encode() in file.read_bytes()] == []


def test_no_process_but_the_one_that_was_given_the_secret_shows_it(story):
    for seen in (story.first, story.resume):
        shown = [text for text in seen.commands.values() if SECRET in text]
        assert len(seen.commands) > 10
        assert all("runner.py" in text for text in shown)
        assert len(set(shown)) == 1  # a child between fork and exec shows its parent's command for a moment


def test_the_pages_of_mlflow_are_served_on_this_machine_alone(story):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    pages = []

    def is_served(seen: Watched) -> bool:
        if any(one == port for _, one in seen.sockets):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as page:
                pages.append(page.read())
        return bool(pages)

    command = [sys.executable, str(ROOT / "runner.py"), "--ui", str(port), "--storage", str(story.at.storage)]
    seen = watched([*command, "--tracking-uri", story.uri], story.at.folder, {}, is_served)
    assert ("127.0.0.1", port) in seen.sockets, seen.output
    assert f"http://127.0.0.1:{port}/#/experiments/1/runs" in seen.output
    assert b"MLflow" in pages[0]
    assert {place: who for place, who in seen.sockets.items() if place[0] not in LOOPBACK} == {}
    assert SECRET not in seen.output
    assert all("runner.py" in text for text in seen.commands.values() if SECRET in text)
