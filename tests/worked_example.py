"""The worked example of docs/own.md, run whole once in a session with a secret in its tracking URI, and watched."""

import atexit
import csv
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.grid.tiny import ROOT, SETTINGS
from tests.model.data.nyu_files import kaggle
from tests.security.processes import command_line, family, listening

EXAMPLE = ROOT / "docs" / "examples" / "small_depth.py"
TINY = SETTINGS.replace(", rooms_train: 12, rooms_val: 4, rooms_test: 4", "")  # these come with the built-in rooms
SPACE = f"name: own\naxes: {{method: [ptq, ptq+qat]}}\n{TINY}"
SECRET = "hunter2-of-the-database"


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


@dataclass(frozen=True)
class Example:
    """A folder with the user's network, pictures and grid, and what the run showed."""

    folder: Path
    session: Path
    uri: str
    seen: Watched

    def rows(self) -> list[dict[str, str]]:
        with (self.folder / "results" / "runs" / "first" / "results.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    def arguments(self, *more: str) -> list[str]:
        folder = self.folder
        paths = ["--grid", str(folder / "own.yaml"), "--storage", str(folder / "results")]
        return [*paths, "--network", str(folder / "small_depth.py"), "--data", str(folder / "pictures"), *more]


def example(factory: pytest.TempPathFactory) -> Example:
    """The example as it ran, from its own folder and by relative names, as people do."""
    return _example(factory.getbasetemp() / "own")


@functools.cache
def _example(folder: Path) -> Example:
    folder.mkdir()
    session = Path(tempfile.mkdtemp(prefix="ray-"))  # pytest's own folders are too deep for Ray's sockets
    atexit.register(shutil.rmtree, session, ignore_errors=True)
    shutil.copy(EXAMPLE, folder)
    kaggle(folder / "pictures")
    (folder / "own.yaml").write_text(SPACE)
    uri = f"sqlite:///file:{folder}/tracked.db?password={SECRET}&uri=true"
    command = [sys.executable, str(ROOT / "runner.py"), "--grid", "own.yaml", "--run-name", "first"]
    command += ["--network", "small_depth.py", "--data", "pictures", "--tracking-uri", uri]
    return Example(folder, session, uri, watched(command, folder, {"RAY_TMPDIR": str(session)}))


def watched(command: list[str], folder: Path, environment: dict[str, str], until: str | None = None) -> Watched:
    """Run a command to its end, or until it serves a page on port ``until``, and note what it shows."""
    seen, end = Watched(), time.monotonic() + 400
    with tempfile.TemporaryFile("w+") as output:
        running = subprocess.Popen(
            command, cwd=folder, env=os.environ | environment, stdout=output, stderr=output, start_new_session=True
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
        output.seek(0)
        seen.status, seen.output = running.returncode, output.read()
    return seen
