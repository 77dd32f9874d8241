"""Settings as the specs that the stages read, for the tests."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from grid.space.settings import Settings, groups, read_group


def unflatten(flat: Mapping[str, Any]) -> Settings:
    """The inverse of ``flatten``; raises KeyError for a missing setting."""
    names = [item.name for item in dataclasses.fields(Settings)]
    return Settings(**{name: read_group(flat, name) if name in groups() else flat[name] for name in names})
