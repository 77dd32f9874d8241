"""How values and names are spelled for MLflow."""

import json

from model.errors import InputError

LONGEST_VALUE = 6000
"""MLflow's limit for a param, in characters."""

Scalar = str | int | float | bool | None


def spelling(value: Scalar) -> str:
    """The value as a param: text as it is, all else as JSON, cut where it is too long."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:LONGEST_VALUE]


def quoted(text: str) -> str:
    """The text as a literal of MLflow's filters; raises InputError where it cannot be one."""
    if "'" in text and '"' in text:
        raise InputError(f"run name {text!r}", "holds both kinds of quotes", "at most one kind")
    return f'"{text}"' if "'" in text else f"'{text}'"
