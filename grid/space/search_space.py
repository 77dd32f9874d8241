"""A search space: YAML, --set and --seeds are read here once, checked once, and become frozen values."""

import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from grid.paths import SEARCH_SPACES
from grid.space.settings import Flat, Scalar, Settings, flatten, groups, resolve, setting_types
from grid.space.values import (
    WORDS,
    Entry,
    abbreviated,
    axis_entries,
    data_types,
    nearest,
    nested_entries,
    spec_errors,
    unknown_key,
)
from grid.space.yaml_reader import LONGEST, read_yaml
from model.data.pack import PackSpec
from model.errors import InputError
from model.network.spec import NetworkSpec

MAX_CELLS = 2000
MOST_CELLS = 100_000
"""No ``max_cells`` is larger: a plan of so many takes some 20 seconds and 700 MB."""
LONGEST_NAME = 60
_SHOWN_ERRORS = 50


@dataclass(frozen=True)
class Exclusion:
    """Cells in which every setting of ``when`` has one of its values are not run, for this ``reason``."""

    when: dict[str, tuple[Scalar, ...]]
    reason: str


@dataclass(frozen=True)
class Preferred:
    """Settings by name for what neither a search space nor a command line names; ``where`` they are from."""

    where: str
    settings: Mapping[str, object]


_NOTHING = Preferred("", {})


@dataclass(frozen=True)
class SearchSpace:
    """What a grid crosses (``axes``), holds fixed (``base``, flat) and leaves out (``exclude``).

    ``written`` are the values that were given, each with its place; all else has its default.
    """

    name: str
    axes: tuple[tuple[str, tuple[Scalar, ...]], ...]
    base: Flat
    exclude: tuple[Exclusion, ...]
    baselines: bool
    pack: PackSpec
    source: Path
    description: str = ""
    written: tuple[Entry, ...] = ()
    finetuned_baseline: bool = False

    def combinations(self, keys: Iterable[str] | None = None) -> Iterator[Flat]:
        """Flat settings of every combination of the axes (of the axes in ``keys`` only, where given)."""
        wanted = None if keys is None else set(keys)
        axes = [axis for axis in self.axes if wanted is None or axis[0] in wanted]
        names = [name for name, _ in axes]
        for values in itertools.product(*(values for _, values in axes)):
            yield resolve(self.base, dict(zip(names, values, strict=True)))


def load_space(
    name_or_file: str | Path,
    overrides: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    preferred: Preferred = _NOTHING,
) -> SearchSpace:
    """Read ``search_spaces/<name>.yaml``, or a file, with the texts of ``--set`` and the ``--seeds`` on top.

    A ``--set key=[a, b]`` makes the setting an axis. ``preferred`` are settings where nothing names them. Raises one
    InputError that shows everything wrong.
    """
    path = _find(name_or_file)
    where = os.path.relpath(path) if path.resolve().is_relative_to(Path.cwd()) else str(path)
    errors: list[InputError] = []
    top = _top(_read(path, where, errors), where, path.stem, errors)
    fixed = nested_entries(where, "settings.", top["settings"], setting_types(), errors)
    fixed |= nested_entries(where, "", {"data": top["data"]}, data_types(), errors)
    axes = {}
    for key, values in top["axes"].items():
        if entries := axis_entries(where, f"axes.{key}", key, values, errors):
            axes[key] = entries
        if key in fixed:
            errors.append(fixed[key].error(f"is an axis too, axes.{key}", "one of the two"))
    for text in overrides:
        _override_(fixed, axes, "--set", text, errors)
    off = _never_named((*fixed, *axes)) | _turned_off(fixed)
    for key, value in preferred.settings.items():
        if key not in fixed and key not in axes and key.partition(".")[0] not in off:
            _override_(fixed, axes, preferred.where, f"{key}={json.dumps(value, default=repr)}", errors)
    if seeds is not None:
        fixed.pop("seed", None)
        axes["seed"] = axis_entries("--seeds", "seed", "seed", list(seeds), errors)

    for key in [key for key in axes if key.partition(".")[0] in _turned_off(fixed)]:
        entry = fixed[key.partition(".")[0]]
        errors.append(entry.error(f"turns off what axes.{key} varies", "it on, or an axis of its own"))
    cells, limit = math.prod(len(values) for values in axes.values()), top["max_cells"]
    if cells > limit:
        expected = f"at most {limit} (max_cells)"
        errors.append(InputError(where, f"axes span {cells} cells", expected, "Raise max_cells if you mean it."))
    errors += spec_errors(fixed, axes, where, combine=cells <= limit)
    exclude = [_exclusion(where, f"exclude[{i}]", item, errors) for i, item in enumerate(top["exclude"])]
    if errors:
        more = len(errors) - _SHOWN_ERRORS
        if more > 0:
            errors[_SHOWN_ERRORS:] = [InputError(where, f"{more} more things are wrong")]
        raise InputError.all(errors)

    chosen = {key: entry.value for key, entry in fixed.items()}
    chosen |= {key: values[0].value for key, values in axes.items()}  # any value: an axis is set cell by cell
    base = _settings(chosen, _turned_off(fixed) | _never_named(chosen))
    sizes = [entry.value for entry in axes.get("network.input_size", [])] or [base.network.input_size]
    pack = _pack({"input_size": sizes[0], **_of_group(chosen, "data")}, sizes, where)
    crossed = tuple((key, tuple(entry.value for entry in entries)) for key, entries in axes.items())
    excluded = tuple(item for item in exclude if item)
    return SearchSpace(
        top["name"],
        crossed,
        flatten(base),
        excluded,
        top["baselines"],
        pack,
        path,
        top["description"].strip(),
        (*fixed.values(), *itertools.chain(*axes.values())),
        top["finetuned_baseline"],
    )


def of_task(space: SearchSpace, network: NetworkSpec) -> SearchSpace:
    """The space with what the data of another task than depth say about its networks: shapes and classes."""
    told = {f"network.{key}": value for key, value in asdict(network).items() if key != "encoder"}
    return replace(space, base={**space.base, **told})


def is_name(text: str | Path) -> bool:
    """Whether a search space is asked for by name, among those that are shipped, and not as a file."""
    path = Path(text)
    return path.suffix not in (".yaml", ".yml") and path.parent == Path(".")


def _find(name: str | Path) -> Path:
    path = SEARCH_SPACES / f"{name}.yaml" if is_name(name) else Path(name)
    if not os.path.isfile(path):  # unlike Path.is_file, also where no file system takes so long a name
        known = sorted(file.stem for file in SEARCH_SPACES.glob("*.yaml"))
        expected = f"one of {', '.join(known)}, or a YAML file"
        raise InputError("--grid", f"{str(name)!r} is not a search space", expected, nearest(name, known))
    return path


def _read(path: Path, where: str, errors: list[InputError]) -> dict[Any, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            document, twice = read_yaml(file.read(LONGEST + 1))
    except (ValueError, OSError) as error:
        raise InputError(where, f"is not YAML ({error})", "a file like full.yaml") from error
    errors += [InputError(where, problem, "each key once") for problem in twice]
    if not isinstance(document, dict):
        raise InputError(where, f"holds {abbreviated(document)}", "a mapping with name, axes and settings")
    return document


def _top(document: Mapping[Any, Any], where: str, stem: str, errors: list[InputError]) -> dict[str, Any]:
    """The top level of a search space, with defaults for what is left out or wrong."""
    top: dict[str, Any] = {"name": stem, "description": "", "baselines": True, "finetuned_baseline": False}
    top |= {"max_cells": MAX_CELLS}
    top |= {"axes": {}, "settings": {}, "exclude": [], "data": {}}
    for key, value in document.items():
        if key not in top:
            errors.append(unknown_key(where, "", key, top))
        elif type(value) is not type(top[key]):
            errors.append(Entry(where, key, key, value).error("has the wrong type", WORDS[type(top[key])]))
        else:
            top[key] = value
    if not 1 <= top["max_cells"] <= MOST_CELLS:
        wrong = Entry(where, "max_cells", "max_cells", top["max_cells"])
        errors.append(wrong.error("is out of range", f"between 1 and {MOST_CELLS}"))
        top["max_cells"] = MAX_CELLS
    if not re.fullmatch(r"\w[\w.-]*", top["name"]) or len(top["name"].encode(errors="replace")) > LONGEST_NAME:
        expected = f"letters, digits, '_', '-' and '.', at most {LONGEST_NAME}, because folders are named after it"
        errors.append(Entry(where, "name", "name", top["name"]).error("is not a name", expected))
    return top


def _override_(
    fixed: dict[str, Entry], axes: dict[str, list[Entry]], where: str, text: str, errors: list[InputError]
) -> None:
    """Put one ``key=value`` of ``--set``, or of another place, in place of what the file says."""
    key, equals, written = text.partition("=")
    kinds = setting_types() | data_types()
    try:
        value, _ = read_yaml(written)
    except ValueError:
        equals = ""
    if not equals:
        errors.append(InputError(where, f"{abbreviated(text)} cannot be read", "key=value, such as qat.epochs=2"))
    elif key not in kinds:
        errors.append(unknown_key(where, "", key, kinds))
    elif key in axes or (isinstance(value, list) and key in setting_types()):
        fixed.pop(key, None)
        axes[key] = axis_entries(where, key, key, value if isinstance(value, list) else [value], errors)
    else:
        group, dot, name = key.partition(".")
        if dot:
            fixed.pop(group, None)  # naming a setting of a group turns the group on
        section = {group: {name: value}} if dot else {key: value}
        fixed |= nested_entries(where, "", section, kinds, errors)


def _exclusion(where: str, at: str, item: Any, errors: list[InputError]) -> Exclusion | None:
    if not isinstance(item, dict) or set(item) != {"when", "reason"} or not isinstance(item["when"], dict):
        expected = "a mapping with when (a mapping of settings) and reason"
        errors.append(Entry(where, at, at, item).error("is not an exclusion", expected))
        return None
    reason, conditions = item["reason"], item["when"]
    if not isinstance(reason, str) or not reason.strip():
        errors.append(Entry(where, f"{at}.reason", at, reason).error("is not a reason", "a sentence"))
    if not conditions:
        errors.append(Entry(where, f"{at}.when", at, conditions).error("excludes all", "one setting or more"))
    when = {}
    for key, value in conditions.items():
        listed = value if isinstance(value, list) else [value]
        when[key] = axis_entries(where, f"{at}.when.{key}", key, listed, errors)
    errors += spec_errors({}, when, where, combine=False)
    return Exclusion({key: tuple(entry.value for entry in entries) for key, entries in when.items()}, reason)


def _never_named(chosen: Iterable[str]) -> set[str]:
    """The groups that are off by default and that neither a setting nor an axis names."""
    named = {key.partition(".")[0] for key in chosen}
    return {item.name for item in fields(Settings) if item.default is None and item.name not in named}


def _turned_off(fixed: Mapping[str, Entry]) -> set[str]:
    """The groups that are turned off."""
    return {name for name in groups() if name in fixed and fixed[name].value is False}


def _of_group(chosen: Mapping[str, Any], group: str) -> dict[str, Any]:
    return {key.partition(".")[2]: value for key, value in chosen.items() if key.startswith(f"{group}.")}


def _settings(chosen: Mapping[str, Any], off: set[str]) -> Settings:
    parts: dict[str, Any] = {key: value for key, value in chosen.items() if "." not in key}
    for name, (spec, _) in groups().items():
        parts[name] = None if name in off else spec(**_of_group(chosen, name))
    return Settings(**parts)


def _pack(chosen: dict[str, Any], sizes: Sequence[int], where: str) -> PackSpec:
    """The data, by default of the size that the network takes; raises InputError where the two differ."""
    for size in sizes:
        if size != chosen["input_size"]:
            problem = f"network.input_size={size} differs from data.input_size={chosen['input_size']}"
            raise InputError(where, problem, "one size, that of the data, in a grid")
    try:
        return PackSpec(**chosen)
    except InputError as error:
        raise error.within(where) from error
