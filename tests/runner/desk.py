"""A folder from which a tiny grid is run, and what is needed to run it in this process."""

import contextlib
import csv
import io
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import runner
from grid.planning.plan import Plan
from grid.scheduling.listener import Listener
from grid.scheduling.outcome import RunOutcome
from grid.scheduling.resources import Resources
from grid.scheduling.searcher import TrieSearcher
from grid.stages.run import run_node
from grid.stages.work import Context
from grid.storage.result_store import StageStore
from tests.grid.tiny import World, space_file, written

AXES = "{method: [ptq, ptq+qat], granularity: [per_channel, per_tensor]}"
EXCLUDE = "exclude: [{when: {granularity: per_tensor}, reason: one granularity is enough here}]"
CELLS = ("fp32", "fp32-fuse_bn", "fuse_bn-per_channel-ptq", "fuse_bn-per_channel-ptq+qat")
EXCLUDED = ("fuse_bn-per_tensor-ptq", "fuse_bn-per_tensor-ptq+qat")
SET = ("--set", "fuse_bn=true", "--set", "equalize.objective=noise")  # the default recipe as it is
MARK = "TINY_GRID_TEST"


@dataclass(frozen=True)
class Desk:
    """A folder from which the grid is run: a search space, a checkpoint, and a storage with packed rooms."""

    folder: Path

    @property
    def storage(self) -> Path:
        return self.folder / "storage"

    def arguments(self, *more: str, **flags: str | None) -> list[str]:
        """A command line that works, with flags replaced or, where None, left out."""
        given: dict[str, str | None] = {
            "grid": str(self.folder / "tiny.yaml"),
            "checkpoint": str(self.folder / "tiny.safetensors"),
            "storage": str(self.storage),
            "run_name": "asked",
            **flags,
        }
        pairs = [(f"--{key.replace('_', '-')}", value) for key, value in given.items() if value is not None]
        return [part for pair in pairs for part in pair] + list(more)

    def run(self, name: str) -> Path:
        """The folder of a run."""
        return self.storage / "runs" / name

    def runs(self) -> set[str]:
        """The names of all runs that have a folder."""
        return {path.name for path in (self.storage / "runs").glob("*")}


def desk(tiny: World, folder: Path) -> Desk:
    space_file(folder / "tiny.yaml", AXES, EXCLUDE)
    shutil.copy(tiny.checkpoint, folder)
    made = Desk(folder)
    shutil.copytree(tiny.pack.parent, made.storage / "packs")
    return made


@dataclass(frozen=True)
class Story:
    """What happened to one storage: a run was killed, resumed, repeated, and followed by one with a bad cell."""

    at: Desk
    killed: dict[str, int]
    resumed: dict[str, int]
    resume: subprocess.CompletedProcess
    again_status: int
    again_output: str
    again_seconds: float
    repeated: dict[str, int]

    @property
    def folder(self) -> Path:
        return self.at.run("first")

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.at.storage / 'mlflow.db'}"

    def rows(self, run: str = "first") -> list[dict[str, str]]:
        with (self.at.run(run) / "results.csv").open(newline="") as file:
            return list(csv.DictReader(file))


def no_cluster(resources: Any) -> Any:
    raise AssertionError("Ray is started")


def quietly(arguments: list[str]) -> tuple[int, str]:
    """Exit status and what was printed, of a run in this process."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        status = runner.main(arguments)
    return status, text.getvalue()


def wait_for_stages(at: Desk, driver: subprocess.Popen, count: int) -> None:
    end = time.monotonic() + 200
    while len(written(at.storage)) < count:
        assert driver.poll() is None, (at.folder / "killed.txt").read_text()
        assert time.monotonic() < end, (at.folder / "killed.txt").read_text()
        time.sleep(0.05)


@contextlib.contextmanager
def marked_environment() -> Iterator[dict[str, str]]:
    """An environment for child processes by which all that they start is found and ended in the end."""
    mark = uuid.uuid4().hex
    yield {**os.environ, MARK: mark}
    for process in _marked(mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


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


def runs_of(story: Story, name: str) -> dict[str, list[Any]]:
    from mlflow import MlflowClient

    client = MlflowClient(story.uri)
    experiment = client.get_experiment_by_name("quantization-grid")
    assert experiment is not None
    parents = client.search_runs([experiment.experiment_id], f"tags.`grid.run` = '{name}'")
    children = [
        run
        for parent in parents
        for run in client.search_runs([experiment.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    ]
    return {"parents": list(parents), "children": children}


def run_plan_here(plan: Plan, context: Context, resources: Resources, listener: Listener) -> RunOutcome:
    """The scheduler of ``grid.scheduling.tune`` with this process in Tune's place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ray.cluster_resources", lambda: {"CPU": 1.0})
        searcher = TrieSearcher(plan, StageStore(context.storage), resources, listener, train_images=12)
        while not searcher.is_done():
            config = searcher.suggest("trial")
            assert isinstance(config, dict)
            node = next(node for node in plan.nodes if node.id == config["node"])
            listener.started(node)
            try:
                run_node(node, context)
            except Exception as error:
                searcher.reasons[node.id] = f"{node.stage}: {type(error).__name__}: {error}"
            searcher.on_trial_complete("trial")
    return RunOutcome(searcher.failures)
