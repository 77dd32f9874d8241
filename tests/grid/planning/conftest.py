"""Search spaces from YAML."""

import pytest

from grid.space.search_space import SearchSpace, load_space


@pytest.fixture
def space_of(tmp_path):
    """Loads a search space from YAML text."""

    def load(text: str, *overrides: str, seeds=None) -> SearchSpace:
        file = tmp_path / "mine.yaml"
        file.write_text(text)
        return load_space(file, overrides, seeds)

    return load
