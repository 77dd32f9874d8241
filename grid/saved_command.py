"""The command line that a run keeps in its folder (``run.json``), so that it can be resumed by its name alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.errors import InputError

FILE = "run.json"


def read_arguments(file: Path, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that a run was started with, by the names of ``defaults``, the same options when not given.

    A value must be of its option's type; one that is not given by default may be a text. Raises InputError.
    """
    try:
        arguments = json.loads(file.read_text(encoding="utf-8"))["arguments"]
        wrong = [key for key, value in arguments.items() if key not in defaults or not _fits(value, defaults[key])]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        problem = f"cannot be read ({type(error).__name__}: {str(error)[:200]})"
        hint = "Repeat its command line with --run-name instead."
        raise InputError(str(file), problem, "the file that a run leaves", hint) from None
    if wrong:
        found = f"{wrong[0]}={repr(arguments[wrong[0]])[:100]} is no argument of a run"
        raise InputError(str(file), found, "the file that a run leaves", "Repeat its command line instead.")
    return arguments


def _fits(value: object, default: object) -> bool:
    if isinstance(default, list):
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if default is None:
        return isinstance(value, str | None)
    if isinstance(default, float):
        return type(value) in (int, float)
    return type(value) is type(default)
