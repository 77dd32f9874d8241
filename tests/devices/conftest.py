"""One emulated board for all tests of a session; what it is made of is kept between sessions."""

import os
from collections.abc import Iterator

import pytest

from tests.devices import board as boards
from tests.devices import parts


@pytest.fixture(scope="session")
def board(tmp_path_factory) -> Iterator[boards.Board]:
    """A board that runs; skips where the registries or sshd are not to be had."""
    folder = tmp_path_factory.mktemp("board")
    try:
        running = boards.up(folder, parent=os.getpid())
    except parts.Unavailable as error:
        pytest.skip(f"no emulated board: {error}")
    yield running
    boards.down(folder)
