"""The computed cells: their records, their store, and a copy to damage."""

import shutil
from dataclasses import replace

import pytest

from grid.stages.work import Context
from grid.storage.result_store import StageStore
from tests.grid.tiny import World, world


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> World:
    return world(tmp_path_factory)


@pytest.fixture
def records(grid) -> dict[str, dict[str, dict]]:
    return grid.records


@pytest.fixture
def context(grid) -> Context:
    return grid.context


@pytest.fixture
def store(context) -> StageStore:
    return StageStore(context.storage)


@pytest.fixture
def copied(context, tmp_path) -> Context:
    """The same results in a store that a test may damage."""
    shutil.copytree(context.storage / "stages", tmp_path / "stages")
    return replace(context, storage=tmp_path)
