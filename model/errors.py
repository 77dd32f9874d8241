"""The one error that a user may see without a traceback, and the checks of a value that raise it."""

import math
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave is wrong: says where, which value, what was expected, and what to do.

    ``InputError("axes.method[0]", "is unknown", hint="Did you mean ptq?", value="'ptk'", options=("ptq", "qat"))``
    Its parts stay fields until it is printed, also on the way from a worker to the driver. ``value`` is the wrong value
    as it is shown, ``options`` are the values to choose from (and ``expected``, where nothing else is). Of several
    errors that are joined (``all``), the fields are those of the first.
    """

    def __init__(
        self,
        where: str,
        problem: str,
        expected: str = "",
        hint: str = "",
        *,
        value: str = "",
        options: Iterable[str] = (),
    ) -> None:
        super().__init__(where, problem, expected, hint)
        self.where, self.problem, self.hint = where, problem, hint
        self.value, self.options = value, tuple(options)
        self.expected = expected or (f"one of {', '.join(self.options)}" if self.options else "")
        self._joined: tuple[InputError, ...] = ()

    def __str__(self) -> str:
        if self._joined:
            return "\n".join(map(str, self._joined))
        text = " ".join(filter(None, (f"{self.where}:", self.value, self.problem)))
        text += f"; expected {self.expected}." if self.expected else "."
        return f"{text} {self.hint}".rstrip()

    @property
    def errors(self) -> tuple["InputError", ...]:
        """The errors that are joined in this one; of a single error, itself."""
        return self._joined or (self,)

    @classmethod
    def all(cls, errors: Iterable["InputError"]) -> "InputError":
        """One error that shows several (at least one), a line each."""
        single = tuple(one for error in errors for one in error.errors)
        first = single[0]
        joined = cls(first.where, first.problem, first.expected, first.hint, value=first.value, options=first.options)
        joined._joined = single
        return joined

    def within(self, where: str) -> "InputError":
        """The same error, its place inside another: ``mine.yaml: data.input_size: ...``."""
        if self._joined:
            return InputError.all(one.within(where) for one in self._joined)
        place = f"{where}: {self.where}"
        return InputError(place, self.problem, self.expected, self.hint, value=self.value, options=self.options)


def require_one_of(where: str, value: object, options: Iterable[str]) -> None:
    """Raise InputError unless ``value`` is one of the ``options``."""
    options = tuple(options)
    if value not in options:
        raise InputError(where, "is unknown", value=repr(value), options=options)


def require_fraction(where: str, value: float) -> None:
    """Raise InputError unless ``0 < value < 1``."""
    if not 0 < value < 1:
        raise InputError(where, "is out of range", "above 0, below 1", value=repr(value))


def require_range(where: str, value: float, low: float, high: float = math.inf) -> None:
    """Raise InputError unless ``low <= value <= high``."""
    if not low <= value <= high:
        limit = f"between {low} and {high}" if high != math.inf else f"at least {low}"
        raise InputError(where, "is out of range", limit, value=repr(value))


def last_line(text: str, most: int = 200) -> str:
    """The last line of what a command wrote that is not empty, so many characters of it at most; empty if none is."""
    return next((line.strip()[:most] for line in reversed(text.splitlines()) if line.strip()), "")
