"""A folder from which a tiny grid is run, and what is needed to run it in this process."""

import contextlib
import io
import shutil
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
from tests.grid.tiny import World, space_file

AXES = "{method: [ptq, ptq+qat], granularity: [per_channel, per_tensor]}"
EXCLUDE = "exclude: [{when: {granularity: per_tensor}, reason: one granularity is enough here}]"
CELLS = ("fp32", "fp32-fuse_bn", "fuse_bn-per_channel-ptq", "fuse_bn-per_channel-ptq+qat")
EXCLUDED = ("fuse_bn-per_tensor-ptq", "fuse_bn-per_tensor-ptq+qat")
SET = ("--set", "fuse_bn=true", "--set", "equalize.objective=noise")  # the default recipe as it is


@dataclass(frozen=True)
class Desk:
    """A folder from which a grid is run: a search space, a storage, and the flags that name what else is there."""

    folder: Path
    flags: dict[str, str]

    @property
    def storage(self) -> Path:
        return self.folder / "storage"

    def arguments(self, *more: str, **flags: str | None) -> list[str]:
        """A command line that works, with flags replaced or, where None, left out."""
        given: dict[str, str | None] = {
            "grid": str(self.folder / "tiny.yaml"),
            "storage": str(self.storage),
            "run_name": "asked",
            **self.flags,
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
    """A desk with a checkpoint, and packed rooms in its storage."""
    space_file(folder / "tiny.yaml", AXES, EXCLUDE)
    checkpoint = Path(shutil.copy(tiny.checkpoint, folder))
    made = Desk(folder, {"checkpoint": str(checkpoint)})
    shutil.copytree(tiny.pack.parent, made.storage / "packs")
    return made


def no_cluster(resources: Any) -> Any:
    raise AssertionError("Ray is started")


def quietly(arguments: list[str]) -> tuple[int, str]:
    """Exit status and what was printed, of a run in this process."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        status = runner.main(arguments)
    return status, text.getvalue()


def runs_of(uri: str, name: str) -> dict[str, list[Any]]:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
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
