"""The one error that a user may see without a traceback."""

from collections.abc import Iterable
from typing import Any


class InputError(ValueError):
    """Something the user gave is wrong: says where, what, what was expected, and what to do.

    ``InputError("mine.yaml: axes.method[0]", "'ptk' is unknown", "one of ptq, qat", "Did you mean ptq?")``
    """

    def __init__(self, where: str, problem: str, expected: str = "", hint: str = "") -> None:
        text = f"{where}: {problem}"
        text += f"; expected {expected}." if expected else "."
        super().__init__(f"{text} {hint}".rstrip())

    @classmethod
    def all(cls, errors: Iterable["InputError"]) -> "InputError":
        """One error that shows several, a line each."""
        return _saying("\n".join(str(error) for error in errors))

    def __reduce__(self) -> tuple[Any, ...]:
        """How it goes from a worker to the driver: by its text."""
        return _saying, (str(self),)


def _saying(text: str) -> InputError:
    error = InputError.__new__(InputError)
    ValueError.__init__(error, text)
    return error
