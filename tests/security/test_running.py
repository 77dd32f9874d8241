"""A tiny grid with a secret in its tracking URI, watched from outside: where it listens, what it shows and leaves."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.grid.tiny import ROOT, space_file, world
from tests.security.processes import command_line, family, listening

SECRET = "hunter2-of-the-database"
LOOPBACK = ("127.0.0.1", "::1")
FOUND = {
    "Ray's dashboard": "dashboard.py",
    "the driver": "runner.py",
    "a worker": "ray::",
    "the node": "raylet",
    "the controller": "gcs_server",
}


@dataclass
class Watched:
    """What was seen of a command and its descendants while it ran."""

    status: int | None = None
    output: str = ""
    sockets: dict[tuple[str, int], str] = field(default_factory=dict)
    commands: dict[int, str] = field(default_factory=dict)
    page: bytes = b""

    def look(self, root: int) -> None:
        processes = family(root)
        self.commands |= {process: text for process in processes if (text := command_line(process))}
        for place, process in listening(processes).items():
            self.sockets[place] = command_line(process)


@dataclass
class Scene:
    folder: Path
    session: Path
    uri: str
    grid: Watched


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Iterator[Scene]:
    tiny, folder = world(tmp_path_factory), tmp_path_factory.mktemp("watched")
    session = Path(tempfile.mkdtemp(prefix="ray-"))  # pytest's own folders are too deep for Ray's sockets
    session.chmod(0o700)
    uri = f"sqlite:///file:{folder}/tracked.db?password={SECRET}&uri=true"
    space_file(folder / "tiny.yaml", "{fuse_bn: [true]}")
    shutil.copytree(tiny.pack.parent, folder / "storage" / "packs")
    command = [sys.executable, str(ROOT / "runner.py"), "--grid", str(folder / "tiny.yaml")]
    command += ["--checkpoint", str(tiny.checkpoint), "--storage", str(folder / "storage"), "--run-name", "watched"]
    command += ["--set", "method=ptq", "--set", "granularity=per_channel", "--set", "rounding=false"]
    seen = watched([*command, "--tracking-uri", uri], {"RAY_TMPDIR": str(session)}, folder / "output.txt")
    yield Scene(folder, session, uri, seen)
    shutil.rmtree(session, ignore_errors=True)


def watched(command: list[str], environment: dict[str, str], output: Path, until: str | None = None) -> Watched:
    """Run a command to its end, or until it serves a page on port ``until``, and note what it shows."""
    seen, end = Watched(), time.monotonic() + 400
    with output.open("w") as file:
        running = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | environment, stdout=file, stderr=file, start_new_session=True
        )
        try:
            while running.poll() is None and time.monotonic() < end:
                seen.look(running.pid)
                if until and any(port == int(until) for _, port in seen.sockets):
                    with urllib.request.urlopen(f"http://127.0.0.1:{until}/", timeout=60) as page:
                        seen.page = page.read()
                    break
                time.sleep(0.5)
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGTERM)
            running.wait(60)
    seen.status, seen.output = running.returncode, output.read_text()
    return seen


def test_a_socket_that_is_open_to_others_would_be_seen():
    with socket.create_server(("0.0.0.0", 0)) as open_to_all, socket.create_server(("127.0.0.1", 0)) as ours:
        found = listening(family(os.getpid()))
        assert found["0.0.0.0", open_to_all.getsockname()[1]] == os.getpid()
        assert ours.getsockname() in found


@pytest.mark.slow
def test_a_grid_listens_on_this_machine_alone(scene):
    assert scene.grid.status == 0, scene.grid.output
    for name, part in FOUND.items():
        assert any(part in command for command in scene.grid.sockets.values()), f"{name} was not seen"
    assert len(scene.grid.sockets) >= 10
    assert {place: who for place, who in scene.grid.sockets.items() if place[0] not in LOOPBACK} == {}


@pytest.mark.slow
def test_no_secret_of_the_tracking_uri_is_printed_or_left_in_any_file(scene):
    assert SECRET not in scene.grid.output
    assert "password=***" in scene.grid.output
    files = [file for root in (scene.folder, scene.session) for file in root.rglob("*") if file.is_file()]
    names = {file.name for file in files}
    assert {"report.md", "report.html", "plan.json", "run.json", "results.csv", "tracked.db", "gcs_server.out"} <= names
    assert len([file for file in files if file.suffix in (".log", ".err", ".out")]) > 20
    assert [file for file in files if SECRET.encode() in file.read_bytes()] == []


@pytest.mark.slow
def test_no_process_but_the_one_that_was_given_the_secret_shows_it(scene):
    shown = [text for text in scene.grid.commands.values() if SECRET in text]
    assert len(scene.grid.commands) > 10
    assert all("runner.py" in text for text in shown)
    assert len(shown) == 1


@pytest.mark.slow
def test_the_pages_of_mlflow_are_served_on_this_machine_alone(scene):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = str(unused.getsockname()[1])
    command = [sys.executable, "runner.py", "--ui", port, "--storage", str(scene.folder), "--tracking-uri", scene.uri]
    seen = watched(command, {}, scene.folder / "pages.txt", until=port)
    assert ("127.0.0.1", int(port)) in seen.sockets, seen.output
    assert f"http://127.0.0.1:{port}/#/experiments/1/runs" in seen.output
    assert b"MLflow" in seen.page
    assert {place: who for place, who in seen.sockets.items() if place[0] not in LOOPBACK} == {}
    assert SECRET not in seen.output
    assert all("runner.py" in text for text in seen.commands.values() if SECRET in text)
