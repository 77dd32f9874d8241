"""Are the lists of packages exact, and is what they say what is installed?"""

import importlib.metadata
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_PIN = re.compile(r"([A-Za-z0-9][\w.-]*)(\[[\w,-]+\])?==([\w.!+-]+)")


def plain_name(name: str) -> str:
    """The name as package indexes compare it: ``Foo_Bar`` and ``foo-bar`` are one package."""
    return re.sub(r"[-_.]+", "-", name).lower()


def public(version: str) -> str:
    """``2.15.0+cpu`` -> ``2.15.0``: what the build was made for is no part of the release."""
    return version.partition("+")[0]


def installed() -> dict[str, str]:
    """Versions of the packages of this environment, by plain name."""
    return {plain_name(found.name): found.version for found in importlib.metadata.distributions()}


def problems(lists: Sequence[Path], have: Mapping[str, str], needed: Sequence[str]) -> list[str]:
    """What is wrong with the lists or with what is installed; those not ``needed`` may be not installed."""
    wrong = []
    for file in lists:
        for number, line in _lines(file):
            pin = _PIN.fullmatch(line)
            if pin is None:
                wrong.append(f"{file.name}:{number}: {line!r} is no exact version; expected NAME==VERSION")
                continue
            version = have.get(plain_name(pin[1]))
            if version is None and file.name in needed:
                wrong.append(f"{file.name}:{number}: {pin[1]} is not installed")
            elif version is not None and public(version) != public(pin[3]):
                wrong.append(f"{file.name}:{number}: {pin[1]} is installed as {version}; expected {pin[3]}")
    return wrong


def unpinned(lists: Sequence[Path], have: Mapping[str, str]) -> list[str]:
    """Installed packages that no list names: they came with those that one does."""
    named = {plain_name(pin[1]) for file in lists for _, line in _lines(file) if (pin := _PIN.fullmatch(line))}
    return sorted(have.keys() - named)


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if text := line.partition("#")[0].strip():
            yield number, text
