"""A search space: YAML, --set and --seeds are read here once, checked once, and become frozen values."""

import dataclasses
import difflib
import functools
import itertools
import math
import os
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from grid.latency import LatencySpec
from model.errors import InputError
from model.network import NetworkSpec
from model.pack import PackSpec
from model.training import TrainSpec
from quant.recipe import (
    ENGINES,
    GRANULARITIES,
    METHODS,
    CalibrateSpec,
    EqualizeSpec,
    QatSpec,
    require_one_of,
    require_range,
)

Scalar = bool | int | float | str | None
FOLDER = Path(__file__).resolve().parent.parent / "search_spaces"
MAX_CELLS = 2000


@dataclass(frozen=True)
class Settings:
    """One cell, fully resolved; a group that may be ``None`` is a stage that may be off."""

    fuse_bn: bool = False
    granularity: str = "per_channel"
    method: str = "ptq"
    engine: str = "qnnpack"
    seed: int = 0
    network: NetworkSpec = field(default_factory=NetworkSpec)
    train: TrainSpec = field(default_factory=TrainSpec)
    equalize: EqualizeSpec | None = field(default_factory=EqualizeSpec)
    calibrate: CalibrateSpec = field(default_factory=CalibrateSpec)
    qat: QatSpec = field(default_factory=QatSpec)
    latency: LatencySpec = field(default_factory=LatencySpec)

    def __post_init__(self) -> None:
        require_one_of("granularity", self.granularity, GRANULARITIES)
        require_one_of("method", self.method, METHODS)
        require_one_of("engine", self.engine, ENGINES)
        require_range("seed", self.seed, 0)


@dataclass(frozen=True)
class Exclusion:
    """Cells in which every setting of ``when`` has one of its values are not run, for this ``reason``."""

    when: dict[str, tuple[Scalar, ...]]
    reason: str


@dataclass(frozen=True)
class SearchSpace:
    """What a grid crosses (``axes``), what it holds fixed (``base``, flat) and what it leaves out (``exclude``)."""

    name: str
    axes: tuple[tuple[str, tuple[Scalar, ...]], ...]
    base: dict[str, Scalar]
    exclude: tuple[Exclusion, ...]
    baselines: bool
    pack: PackSpec
    source: Path
    description: str = ""


# ---- flat settings -------------------------------------------------------------------------------------------


def _fields(spec: type) -> dict[str, Any]:
    """Field name -> type of a spec; a TypeError for a type that no JSON scalar can hold."""
    hints = typing.get_type_hints(spec)
    for name, hint in hints.items():
        parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        if not all(part in (bool, int, float, str, type(None)) for part in parts):
            raise TypeError(f"{spec.__name__}.{name} is a {hint}: a setting must be a JSON scalar")
    return hints


@functools.cache
def _groups() -> dict[str, tuple[type, bool]]:
    """Group name -> (its dataclass, whether it may be off), in the order of Settings."""
    found = {}
    for name, hint in typing.get_type_hints(Settings).items():
        parts = typing.get_args(hint) or (hint,)
        for part in filter(dataclasses.is_dataclass, parts):
            found[name] = (typing.cast(type, part), type(None) in parts)
    return found


@functools.cache
def setting_types() -> dict[str, Any]:
    """Dotted key -> type of every setting; a group that may be off is itself a bool (on or off)."""
    keys: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(Settings).items():
        if name not in _groups():
            keys[name] = hint
            continue
        spec, optional = _groups()[name]
        if optional:
            keys[name] = bool
        keys |= {f"{name}.{key}": kind for key, kind in _fields(spec).items()}
    return keys


def flatten(settings: Settings) -> dict[str, Scalar]:
    """Settings as dotted JSON scalars (``qat.epochs``); a group that is off is one key with None."""
    flat: dict[str, Scalar] = {}
    for name in (item.name for item in dataclasses.fields(settings)):
        value = getattr(settings, name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            flat |= {f"{name}.{key}": item for key, item in dataclasses.asdict(value).items()}
        else:
            flat[name] = value
    return flat


def read_group(flat: Mapping[str, Any], name: str) -> Any:
    """The spec of one group (``qat`` -> QatSpec) out of flat settings, or None where the group is off.

    Raises KeyError for a missing field: a stage that reads a setting must state it in ``plan.STAGE_SETTINGS``.
    """
    spec, optional = _groups()[name]
    if optional and name in flat:
        return None
    return spec(**{key: flat[f"{name}.{key}"] for key in _fields(spec)})


def unflatten(flat: Mapping[str, Any]) -> Settings:
    """The inverse of ``flatten``; raises KeyError for a missing setting."""
    names = [item.name for item in dataclasses.fields(Settings)]
    return Settings(**{name: read_group(flat, name) if name in _groups() else flat[name] for name in names})


def resolve(base: Mapping[str, Scalar], chosen: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Flat settings with the ``chosen`` values of the axes set; ``equalize: False`` takes out its group."""
    flat = {**base, **chosen}
    for name, (_, optional) in _groups().items():
        if optional and name in flat and not flat.pop(name):
            flat = {key: value for key, value in flat.items() if not key.startswith(f"{name}.")}
            flat[name] = None
    return flat


def combinations(space: SearchSpace, keys: Iterable[str] | None = None) -> Iterator[dict[str, Scalar]]:
    """Flat settings of every combination of the axes (of those named by ``keys`` only, where given)."""
    axes = [axis for axis in space.axes if keys is None or axis[0] in keys]
    for values in itertools.product(*(values for _, values in axes)):
        yield resolve(space.base, dict(zip((key for key, _ in axes), values, strict=True)))


# ---- reading and checking ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    """A value as the user gave it: in which file or flag, at which place there, for which setting."""

    where: str
    at: str
    key: str
    value: Any

    def error(self, problem: str, expected: str = "", options: Iterable[str] = ()) -> InputError:
        return InputError(self.where, f"{self.at}={self.value!r} {problem}", expected, _nearest(self.value, options))

    def located(self, line: str) -> InputError:
        """A spec's own error, ``calibrate.images: 0 is out of range; ...``, told where the user wrote the value."""
        text = line.partition(": ")[2].removeprefix(f"{self.value!r} ")
        problem, _, expected = text.rstrip(".").partition("; expected ")
        return self.error(problem, expected, re.split(", ", expected.removeprefix("one of ")))

    def typed(self, kind: Any) -> "_Entry":
        """The same entry with a value of its setting's type; raises InputError."""
        parts = typing.get_args(kind) or (kind,)
        value = self.value
        if float in parts and isinstance(value, int | float | str) and not isinstance(value, bool):
            try:  # YAML 1.1 reads 1e-4 as text
                number = float(value)
            except ValueError:
                number = math.nan
            if math.isfinite(number):
                return dataclasses.replace(self, value=number + 0.0)  # -0.0 and 0.0 are one value
        elif type(value) in parts:
            return self
        words = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}
        raise self.error("has the wrong type", " or ".join(words.get(part, "null") for part in parts))


def _nearest(value: object, options: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(value), list(options), 1)
    return f"Did you mean {near[0]}?" if near else ""


def _unknown(where: str, key: object, options: Iterable[str]) -> InputError:
    """An unknown key; what is offered are the keys of its own group, or the groups where that is unknown too."""
    options = [str(option) for option in options]
    group = str(key).partition(".")[0]
    same = [option for option in options if option.partition(".")[0] == group]
    offered = same or list(dict.fromkeys(o.partition(".")[0] + ".*" * ("." in o) for o in options))
    return InputError(where, f"{key!r} is an unknown key", f"one of {', '.join(offered)}", _nearest(key, options))


def _find(name: str | Path) -> Path:
    path = Path(name)
    if path.suffix not in (".yaml", ".yml") and path.parent == Path("."):
        path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in FOLDER.glob("*.yaml"))
        expected = f"one of {', '.join(known)}, or a YAML file"
        raise InputError("--grid", f"{str(name)!r} is no search space", expected, _nearest(name, known))
    return path


def _repeated_keys(node: yaml.Node | None, where: str, seen: set[int]) -> Iterator[InputError]:
    """YAML keeps the last of two equal keys without a word: here both are an error."""
    if not isinstance(node, yaml.CollectionNode) or id(node) in seen:
        return
    seen.add(id(node))
    pairs = node.value if isinstance(node, yaml.MappingNode) else [(None, item) for item in node.value]
    names = [key.value for key, _ in pairs if isinstance(key, yaml.ScalarNode)]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield InputError(f"{where}:{node.start_mark.line + 1}", f"{name!r} is there twice", "one value for each key")
    for _, value in pairs:
        yield from _repeated_keys(value, where, seen)


def _read(path: Path, where: str, errors: list[InputError]) -> dict[Any, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        errors += _repeated_keys(yaml.compose(text, Loader=yaml.SafeLoader), where, set())
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise InputError(where, f"cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise InputError(where, f"holds {document!r:.60}", "a mapping with name, axes and settings")
    return document
