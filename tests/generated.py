"""How many inputs Hypothesis generates: all in ``make test-all``; in ``make test`` a tenth, always the same."""

from typing import Any

from hypothesis import settings

SHARE = 10


def generated(examples: int, **more: Any) -> settings:
    """Settings for so many examples in the profile ``all`` (tests/conftest.py), and a tenth of them in any other."""
    whole = settings.get_current_profile_name() == "all"
    return settings(max_examples=examples if whole else max(examples // SHARE, 1), deadline=None, **more)
