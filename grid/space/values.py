"""One value of a search space as the user wrote it, and everything that can be wrong with it."""

import dataclasses
import difflib
import functools
import itertools
import math
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grid.space.settings import REPLACED, Settings, field_types, groups, setting_types
from model.data.pack import PackSpec
from model.errors import InputError

WORDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}
SHOWN = 100
LARGEST = 2**53  # beyond, JSON and MLflow keep whole numbers no longer as they are
WORDS |= {type(None): "null", dict: "a mapping", list: "a list"}


@functools.cache
def data_types() -> dict[str, Any]:
    """Dotted key (``data.rooms_train``) -> type of everything that may be said about the data."""
    return {f"data.{name}": kind for name, kind in field_types(PackSpec).items()}


@dataclass(frozen=True)
class Entry:
    """A value as it was written ``at`` a place of ``where`` (a file or a flag), for the setting ``key``."""

    where: str
    at: str
    key: str
    value: Any

    def error(self, problem: str, expected: str = "", hint: str = "", options: Iterable[str] = ()) -> InputError:
        """What is wrong with the value; without a ``hint``, the nearest of the ``options`` is one."""
        hint = hint or nearest(self.value, options)
        return InputError(self.where, f"{self.at}={abbreviated(self.value)} {problem}", expected, hint, options=options)

    def typed(self) -> "Entry":
        """The same entry with a value of its setting's type; raises InputError."""
        kind = (setting_types() | data_types())[self.key]
        parts = typing.get_args(kind) or (kind,)
        if type(self.value) is int and abs(self.value) > LARGEST:
            raise self.error("is too large", f"at most {LARGEST}")
        if type(self.value) in parts and type(self.value) is not float:
            return self
        if float in parts and type(self.value) in (int, float, str):
            try:  # a str too, because YAML 1.1 takes 1e-4 for text
                number = float(self.value) + 0.0  # -0.0 and 0.0 are one value
            except (ValueError, OverflowError):
                number = math.nan
            if math.isfinite(number):
                return dataclasses.replace(self, value=number)
        raise self.error("has the wrong type", " or ".join(WORDS[part] for part in parts))

    def spec(self) -> type:
        """The spec that checks the value."""
        specs = {"": Settings, "data": PackSpec} | {key: spec for key, (spec, _) in groups().items()}
        return specs[self.key.rpartition(".")[0]]

    def located(self, error: InputError) -> InputError:
        """The error of a spec (``calibrate.images: 0 is out of range; ...``), at the place of this entry."""
        return self.error(error.problem, error.expected, error.hint, error.options)


def abbreviated(value: object) -> str:
    """The value as a message shows it: its beginning where it is long."""
    return _beginning(repr(value))


def _beginning(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def nearest(value: object, options: Iterable[str]) -> str:
    """``Did you mean ptq?``, or nothing where no option is near."""
    near = difflib.get_close_matches(_beginning(str(value)), list(options), 1)
    return f"Did you mean {near[0]}?" if near else ""


def unknown_key(where: str, at: str, key: object, options: Iterable[str]) -> InputError:
    """The error for an unknown key; offered are the keys of its group, or all groups where it has none."""
    options = list(options)
    key = _beginning(str(key))
    same = [option for option in options if option.partition(".")[0] == key.partition(".")[0]]
    if key in REPLACED:
        return InputError(where, f"{at}{key} is no setting any more", hint=REPLACED[key])
    offered = same or list(dict.fromkeys(option.partition(".")[0] for option in options))
    return InputError(where, f"{at}{key} is an unknown key", hint=nearest(key, options), options=offered)


def nested_entries(
    where: str, at: str, section: Mapping[Any, Any], kinds: Mapping[str, Any], errors: list[InputError]
) -> dict[str, Entry]:
    """The typed entries of a section of groups (``qat: {epochs: 3}``), by dotted key."""
    found: dict[str, Entry] = {}
    inner = {key.partition(".")[0] for key in kinds if "." in key}
    for name, value in section.items():
        written = {name: value}
        if isinstance(value, dict) and (value or (name in inner and name not in kinds)):
            written = {f"{name}.{key}": part for key, part in value.items()}
        elif name in inner and name not in kinds:
            errors.append(Entry(where, f"{at}{name}", name, value).error("has the wrong type", "a mapping"))
            continue
        for key, part in written.items():
            if key not in kinds:
                errors.append(unknown_key(where, at, key, kinds))
            elif "." in str(name):
                expected = f"{str(name).partition('.')[0]} with its settings in a mapping below"
                errors.append(InputError(where, f"{at}{name} has a dot in it", expected))
            else:
                _add_typed_(found, Entry(where, f"{at}{key}", key, part), errors)
    return found


def _add_typed_(found: dict[str, Entry], entry: Entry, errors: list[InputError]) -> None:
    try:
        found[entry.key] = entry.typed()
    except InputError as error:
        errors.append(error)


def axis_entries(where: str, at: str, key: Any, values: Any, errors: list[InputError]) -> list[Entry]:
    """The typed entries of one axis, which is a list of different values of one setting."""
    if key not in setting_types():
        errors.append(unknown_key(where, at.removesuffix(str(key)), key, setting_types()))
        return []
    if not isinstance(values, list) or not values:
        errors.append(Entry(where, at, key, values).error("is not an axis", "a list of one value or more"))
        return []
    found: list[Entry] = []
    seen: set[Any] = set()
    for number, value in enumerate(values):
        one: dict[str, Entry] = {}
        _add_typed_(one, Entry(where, f"{at}[{number}]", key, value), errors)
        for entry in one.values():
            if entry.value in seen:
                errors.append(entry.error("is there twice", "each value once"))
            seen.add(entry.value)
            found.append(entry)
    return found


def spec_errors(
    fixed: Mapping[str, Entry], axes: Mapping[str, Sequence[Entry]], where: str, *, combine: bool
) -> list[InputError]:
    """What the specs say; ``combine`` builds every combination of a spec's values, else each value alone."""
    by_spec: dict[type, list[list[Entry]]] = {}
    for entries in [[entry] for entry in fixed.values()] + [list(entries) for entries in axes.values()]:
        if entries and entries[0].key not in groups():
            by_spec.setdefault(entries[0].spec(), []).append(entries)
    found: list[InputError] = []
    for lists in by_spec.values():
        tried = itertools.product(*lists) if combine else ()
        wrong = [error for chosen in tried for _, error in _build(chosen, where)]
        if wrong or not combine:  # a spec may stop at its first error: each value alone shows all of them
            alone = [(entry, at, error) for entry in itertools.chain(*lists) for at, error in _build([entry], where)]
            wrong = [error for entry, at, error in alone if entry is at] + wrong
        found += wrong
    return list({str(error): error for error in found}.values())


def _build(entries: Sequence[Entry], where: str) -> list[tuple[Entry | None, InputError]]:
    """The errors of a spec that is built of these entries, each with the entry that it names."""
    named = {entry.key: entry for entry in entries}
    try:
        entries[0].spec()(**{key.rpartition(".")[2]: entry.value for key, entry in named.items()})
    except InputError as caught:
        found = [(named.get(error.where), error) for error in caught.errors]
        return [(entry, entry.located(error) if entry else error.within(where)) for entry, error in found]
    return []
