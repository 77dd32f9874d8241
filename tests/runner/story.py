"""The worked example of docs/own.md, watched: its run is killed, resumed, and run again, with a secret in a URI."""

import contextlib
import csv
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.grid.tiny import ROOT, SETTINGS, written
from tests.model.data.nyu_files import kaggle
from tests.runner.desk import AXES, EXCLUDE, SET, Desk, no_cluster, quietly
from tests.security.processes import command_line, family, listening

EXAMPLE = ROOT / "docs" / "examples" / "small_depth.py"
TINY = SETTINGS.replace(", rooms_train: 12, rooms_val: 4, rooms_test: 4", "")  # these come with the built-in rooms
SECRET = "hunter2-of-the-database"
KILLED_AFTER = 5
"""Stages."""
MARK = "TINY_GRID_TEST"


@dataclass
class Watched:
    """What was seen of a command and its descendants while it ran."""

    status: int | None = None
    output: str = ""
    sockets: dict[tuple[str, int], str] = field(default_factory=dict)
    commands: dict[int, str] = field(default_factory=dict)

    def look(self, root: int) -> None:
        processes = family(root)
        self.commands |= {process: text for process in processes if (text := command_line(process))}
        for place, process in listening(processes).items():
            # A process that is ending has no command line any more; what it was has been seen.
            self.sockets[place] = command_line(process) or self.sockets.get(place, "")


@dataclass(frozen=True)
class Story:
    """What happened to one storage: when its stages were written (ns, by id), and what each run showed."""

    at: Desk
    session: Path
    first: Watched
    killed: dict[str, int]
    resume: Watched
    resumed: dict[str, int]
    again_status: int
    again_output: str
    again_seconds: float
    repeated: dict[str, int]

    @property
    def folder(self) -> Path:
        return self.at.run("first")

    @property
    def uri(self) -> str:
        return self.at.flags["tracking_uri"]

    def rows(self, run: str = "first") -> list[dict[str, str]]:
        with (self.at.run(run) / "results.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    def resuming(self, *more: str) -> list[str]:
        """The arguments that resume the first run; the secret of its URI is given again."""
        return ["--resume", "first", "--storage", str(self.at.storage), "--tracking-uri", self.uri, *more]


@contextlib.contextmanager
def told(folder: Path) -> Iterator[Story]:
    """Let it happen in this folder, and end in the end whatever is left of it."""
    session = Path(tempfile.mkdtemp(prefix="ray-"))  # pytest's own folders are too deep for Ray's sockets
    mark = uuid.uuid4().hex
    try:
        yield _tell(folder, session, {MARK: mark, "RAY_TMPDIR": str(session)})
    finally:
        for process in _marked(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        shutil.rmtree(session, ignore_errors=True)
        shutil.rmtree("file:", ignore_errors=True)  # MLflow takes the path of such a URI for a relative one


def _tell(folder: Path, session: Path, environment: dict[str, str]) -> Story:
    shutil.copy(EXAMPLE, folder)
    kaggle(folder / "pictures")
    (folder / "tiny.yaml").write_text(f"name: own\naxes: {AXES}\n{TINY}{EXCLUDE}\n")
    uri = f"sqlite:///file:{folder}/tracked.db?password={SECRET}&uri=true"
    paths = {"network": str(folder / EXAMPLE.name), "data": str(folder / "pictures")}
    at = Desk(folder, {**paths, "tracking_uri": uri})
    # From the folder of the files, by relative names, as people do.
    command = [sys.executable, str(ROOT / "runner.py"), "--storage", "storage", "--tracking-uri", uri]
    start = ["--grid", "tiny.yaml", "--network", EXAMPLE.name, "--data", "pictures", "--run-name", "first", *SET]
    first = watched(
        [*command, *start], folder, environment, lambda seen: len(written(at.storage)) >= KILLED_AFTER, signal.SIGKILL
    )
    killed = written(at.storage)
    resume = watched([*command, "--resume", "first"], folder, environment)
    resumed = written(at.storage)
    started = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grid.scheduling.tune.cluster", no_cluster)
        status, text = quietly(at.arguments(*SET, run_name="again"))
    seconds = time.monotonic() - started
    return Story(at, session, first, killed, resume, resumed, status, text, seconds, written(at.storage))


def watched(
    command: list[str],
    folder: Path,
    environment: dict[str, str],
    enough: Callable[[Watched], bool] = lambda seen: False,
    end: signal.Signals = signal.SIGTERM,
) -> Watched:
    """Run a command to its end, or until ``enough`` was seen, when it gets the signal ``end``."""
    seen, patience = Watched(), time.monotonic() + 400
    with tempfile.TemporaryFile("w+") as output:
        running = subprocess.Popen(
            command, cwd=folder, env=os.environ | environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            while running.poll() is None and time.monotonic() < patience and not enough(seen):
                seen.look(running.pid)
                time.sleep(0.5)
        finally:
            if running.poll() is None and end == signal.SIGKILL:
                running.kill()  # the driver alone
            elif running.poll() is None:
                os.killpg(running.pid, end)
            running.wait(60)
        output.seek(0)
        seen.status, seen.output = running.returncode, output.read()
    return seen


def _marked(mark: str) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found
