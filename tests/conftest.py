"""Shared by all tests: one torch thread a process, and what is made once in a session because it takes long."""

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import pytest
import torch
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from grid.scheduling.tune import Dashboard
    from tests.grid.tiny import Computed
    from tests.runner.story import Story

ROOT = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)

settings.register_profile("few", derandomize=True, database=None, deadline=None)
settings.register_profile("all", deadline=None, print_blob=True)
settings.load_profile("few")

ONCE = ("story", "ray_cluster", "computed_grid")
"""Fixtures that take long to make: files that use one run in one process, and first."""

SLOW = ("exported_files", "ill_grid", "in_plan_order")
"""Fixtures whose tests all are slow, whichever of them runs first."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what is slow by its fixtures."""
    if not set(SLOW).isdisjoint(getattr(item, "fixturenames", ())):
        item.add_marker(pytest.mark.slow)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that share a fixture of ONCE stand together at the beginning."""
    order = [*ONCE, ""]
    items.sort(key=lambda item: order.index(shared_fixture(item.nodeid)))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """A file runs in one process, and all files that share a fixture of ONCE in the same."""

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return shared_fixture(nodeid) or nodeid.partition("::")[0]

    return Together(config, log)


def shared_fixture(nodeid: str) -> str:
    """The first fixture of ONCE that a function in a test's file asks for, or an empty text."""
    return _shared_fixture(nodeid.partition("::")[0])


@cache
def _shared_fixture(file: str) -> str:
    text = (ROOT / file).read_text()
    return next((name for name in ONCE if re.search(rf"^def .*\b{name}\b.*:$", text, re.MULTILINE)), "")


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator["Dashboard"]:
    """The one Ray of this process, as a run starts it; its nodes report their metrics every second."""
    from grid.scheduling.resources import Resources
    from grid.scheduling.tune import cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_metrics_report_interval_ms", "1000")
        with cluster(Resources()) as dashboard:
            yield dashboard


@pytest.fixture(scope="session")
def story(tmp_path_factory) -> Iterator["Story"]:
    """The worked example, killed, resumed and run again."""
    from tests.runner.story import told

    with told(tmp_path_factory.mktemp("own")) as story:
        yield story


@pytest.fixture(scope="session")
def computed_grid(tmp_path_factory) -> "Computed":
    """The cells of tests/grid/tiny.py, computed in this process."""
    from tests.grid.tiny import computed

    return computed(tmp_path_factory)
