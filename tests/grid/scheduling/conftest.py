"""A store, a plan, and machines that play Tune."""

from collections.abc import Callable

import pytest

from grid.planning.plan import Plan
from grid.planning.stage import PROFILER
from grid.scheduling import tune as schedule
from grid.scheduling.resources import device_resource
from grid.scheduling.tune import Resources, TrieSearcher
from grid.storage.result_store import StageStore
from tests.grid.scheduling.events import Events
from tests.grid.scheduling.machine import FULL, Machine
from tests.grid.tiny import space_of, world


@pytest.fixture
def store(tmp_path) -> StageStore:
    return StageStore(tmp_path / "storage")


@pytest.fixture
def plan(tmp_path, tmp_path_factory) -> Plan:
    return world(tmp_path_factory).plan(space_of(tmp_path, FULL))


@pytest.fixture
def machine(store, monkeypatch) -> Callable[..., Machine]:
    """Makes a machine with a searcher, without Ray."""

    def make(
        plan: Plan,
        cpus: float = 2,
        gpus: float = 0,
        resources: Resources | None = None,
        profilers: float = 0,
        devices: tuple[str, ...] = (),
    ) -> Machine:
        total = {"CPU": float(cpus)} | ({"GPU": float(gpus)} if gpus else {})
        total |= {PROFILER: float(profilers)} if profilers else {}
        total |= {device_resource(label): 1.0 for label in devices}
        monkeypatch.setattr(schedule.ray, "cluster_resources", lambda: total)
        searcher = TrieSearcher(plan, store, resources or Resources(), Events(), train_images=12)
        return Machine(searcher, plan, store, cpus)

    return make
