"""A few kills in every run of the tests; ``python -m tests.faults --kills 50`` is the long version."""

import pytest

from tests.faults.harness import run
from tests.grid.tiny import world


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_is_lost_whatever_is_killed(tmp_path_factory, tmp_path):
    toll = run(world(tmp_path_factory), tmp_path, kills=2, seed=3)
    print(toll.text())
    assert toll.kills.total() == 2
    assert toll.losses == [], toll.text()
