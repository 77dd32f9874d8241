"""The one error that a user may see without a traceback."""

from collections.abc import Iterable


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
        joined = cls.__new__(cls)
        ValueError.__init__(joined, "\n".join(str(error) for error in errors))
        return joined
