"""A smoke grid of a task of one's own, run in this process without Ray."""

import contextlib
from pathlib import Path

import pytest

from grid.scheduling.tune import Dashboard
from tests.runner.desk import quietly, run_plan_here


def smoke(task: Path, storage: Path, name: str, settings: tuple[str, ...]) -> Path:
    """The folder of a run of the smoke grid, which succeeded."""
    arguments = ["--grid", "smoke", "--task", str(task), "--storage", str(storage), "--run-name", name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "grid.scheduling.tune.cluster", lambda resources, devices: contextlib.nullcontext(Dashboard("", None))
        )
        patch.setattr("grid.scheduling.tune.run_plan", run_plan_here)
        status, text = quietly([*arguments, *(part for setting in settings for part in ("--set", setting))])
    assert status == 0, text
    return storage / "runs" / name
