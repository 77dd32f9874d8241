"""Fixtures of the tests of the command line."""

import pytest

from tests.grid.tiny import World, world
from tests.runner.desk import Desk, desk


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> World:
    return world(tmp_path_factory)


@pytest.fixture
def at(tiny, tmp_path) -> Desk:
    return desk(tiny, tmp_path)
