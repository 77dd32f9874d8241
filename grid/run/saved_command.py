"""The command line that a run keeps in its folder (``run.json``), so that it can be resumed by its name alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grid.space.values import abbreviated
from model.errors import InputError

FILE = "run.json"
_HINT = "Repeat the run's command line with --run-name instead."


def read_facts(file: Path) -> dict[str, Any]:
    """What a run says of itself: ``arguments``, and ``pack`` by its path in the storage. Raises InputError."""
    try:
        facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(facts["arguments"], dict) or not isinstance(facts.get("pack", ""), str):
            raise TypeError("its arguments are not a mapping, or its pack is not a text")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        problem = f"cannot be read ({type(error).__name__}: {str(error)[:200]})"
        raise InputError(str(file), problem, "the file that a run leaves", _HINT) from None
    return facts


def read_arguments(file: Path, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that a run was started with, by the names of ``defaults``, the same options when not given.

    A value must be of its option's type; where that is None by default, a text. Raises InputError.
    """
    arguments: dict[str, Any] = read_facts(file)["arguments"]
    for name, value in arguments.items():
        if name not in defaults or not _fits(value, defaults[name]):
            problem = f"{name}={abbreviated(value)} is not an argument of a run"
            raise InputError(str(file), problem, "the file that a run leaves", _HINT)
    return arguments


def _fits(value: object, default: object) -> bool:
    if isinstance(default, tuple):
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if default is None:
        return isinstance(value, str | None)
    if isinstance(default, float):
        return type(value) in (int, float)
    return type(value) is type(default)
