"""Shared by all tests: one torch thread a process, and what is made once in a session because it takes long."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import pytest
import torch
from hypothesis import settings

if TYPE_CHECKING:
    from grid.scheduling.tune import Dashboard
    from tests.runner.story import Story

torch.set_num_threads(1)

settings.register_profile("few", derandomize=True, database=None, deadline=None)
settings.register_profile("all", deadline=None, print_blob=True)
settings.load_profile("few")

ONCE = ("story", "ray_cluster", "computed_grid")
"""Fixtures that take long to make: all tests that need one run in one process, and those first."""

SLOW = ("exported_files", "ill_grid", "in_plan_order")
"""Fixtures whose tests all are slow, whichever of them runs first."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what is slow by its fixtures; keep the tests of a file, or of a fixture of ONCE, in one process."""
    if not _used(item).isdisjoint(SLOW):
        item.add_marker(pytest.mark.slow)
    item.add_marker(pytest.mark.xdist_group(_shared(item) or item.nodeid.partition("::")[0]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long to make is made first."""
    items.sort(key=lambda item: [*ONCE, ""].index(_shared(item)))


def _used(item: pytest.Item) -> set[str]:
    return set(getattr(item, "fixturenames", ()))


def _shared(item: pytest.Item) -> str:
    """The first fixture of ONCE that a test uses, or an empty text."""
    return next((name for name in ONCE if name in _used(item)), "")


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
