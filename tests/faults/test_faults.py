"""A kill in every run of the tests; ``python -m tests.faults --kills 50`` is the long version."""

import pytest

from tests.faults.harness import run
from tests.grid.tiny import world


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_is_lost_whatever_is_killed(tmp_path_factory, tmp_path):
    toll = run(world(tmp_path_factory), tmp_path, kills=1, seed=3)
    print(toll.text())
    assert toll.kills.total() == 1
    assert toll.losses == [], toll.text()
