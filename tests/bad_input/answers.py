"""What every bad input must get: one clear message in the form of InputError, and nothing else."""

from collections.abc import Callable

import pytest

from model.errors import InputError

MOST_LINES, LONGEST_LINE = 60, 1200


def refusal(call: Callable[[], object]) -> str:
    """The message of what must be refused; any other exception goes on, and fails the test."""
    with pytest.raises(InputError) as caught:
        call()
    return in_form(caught.value)


def handled(call: Callable[[], object]) -> str:
    """The message of what may be refused, or an empty text where it was taken as it is."""
    try:
        call()
    except InputError as error:
        return in_form(error)
    return ""


def in_form(error: InputError) -> str:
    """The text of an error that names its place and can be read on a screen."""
    lines = str(error).splitlines()
    assert len(lines) <= MOST_LINES
    assert all(len(line) <= LONGEST_LINE for line in lines)
    assert ": " in lines[0]
    assert "Traceback" not in str(error)
    return str(error)
