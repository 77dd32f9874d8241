"""The data of a task in a pack: what ``datasets`` of its file gives, item by item, as any of them may be written."""

import dataclasses
import hashlib
import inspect
import json
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset

from model.data.frame import SPLITS, Item, Layout
from model.data.pack import TARGET, TASK_FORMAT, PackSpec, made, prepare_pack
from model.data.packing import PackProgress, Source
from model.errors import InputError
from model.network.spec import DEPTH
from model.network.user_network import reason
from model.tasks.load import facts_of, required_function, task_module, task_of

_FORM = "docs/tasks.md shows whole ones."
_EXPECTED = "def datasets(data) -> {'train': Dataset, 'val': Dataset, 'test': Dataset}"
_MOST_WORKERS = 8
_WORTH_WORKERS = 48
"""Items: starting workers takes a while."""
_MOST_BAD = 1000
"""Bad items before the first good one: of more, each is likely to be wrong in the same way."""
Arrays = dict[str, np.ndarray]


def prepare_data(
    task: str,
    data: str,
    folder: Path,
    spec: PackSpec,
    progress: PackProgress | None = None,
    fetch: Callable[[Path], object] = lambda path: None,
) -> Path:
    """The pack of ``data`` for a task (a built-in one's name, or a Python file) in ``folder``, written if missing.

    Raises InputError where the task has no such data, or gives items that do not fit together; it names the file.
    """
    if task == DEPTH:
        return prepare_pack(data, folder, spec, progress, fetch)
    name, identity, module = task_module(task)
    file = Path(str(module.__file__))
    facts = facts_of(task_of(name, identity, module))
    datasets = _datasets(module, file, data, spec)
    readers = {split: _Reader(dataset, split, file) for split, dataset in datasets.items()}
    first = _first(readers["train"], spec.skip_bad)
    layout: Layout = {name: (array.dtype.name, array.shape) for name, array in first.items()}
    classes = _classes(datasets["train"])
    facts = dataclasses.replace(facts, classes=classes)
    counts = {split: len(readers[split]) for split in SPLITS}

    def items(split: str, start: int) -> Generator[Item | InputError]:
        yield from _items(readers[split], layout, start)

    known = {key: value for key, value in dataclasses.asdict(spec).items() if key not in ("cache", "skip_bad")}
    key = json.dumps([TASK_FORMAT, identity, _identity(datasets, data), known, counts], sort_keys=True, default=str)
    stem = "rooms" if data == "rooms" else Path(data).resolve().stem[:40]
    path = folder / f"{stem}-{name.rpartition('/')[2]}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.h5"
    note = str(getattr(datasets["train"], "note", ""))
    detail = {"task": name, "note": note}
    origin = data if data == "rooms" else name
    attributes = {
        "format": TASK_FORMAT,
        "input_size": max(layout["image"][1][1:]),
        "task": facts.text(),
        "layout": json.dumps({name: [dtype, list(shape)] for name, (dtype, shape) in layout.items()}),
    }
    source = Source(origin, stem, detail, [], counts, layout, items, note, skip_bad=spec.skip_bad)
    return made(path, source, attributes, progress, fetch)


def _datasets(module: Any, file: Path, data: str, spec: PackSpec) -> dict[str, Dataset[Any]]:
    """The datasets by split; raises InputError for what is missing or raises."""
    function = required_function(module, "datasets", _EXPECTED)
    more = {"spec": spec} if "spec" in inspect.signature(function).parameters else {}
    try:
        found = function(data, **more)
        if hasattr(found, "train_dataloader"):
            found = _of_module(found)
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        problem = f"datasets({data!r}) fails ({reason(error, file)})"
        raise InputError(str(file), problem, _EXPECTED, _FORM) from error
    missing = [split for split in SPLITS if not isinstance(found, Mapping) or split not in found]
    if missing:
        given = ", ".join(map(repr, found)) if isinstance(found, Mapping) else f"a {type(found).__name__}"
        problem = f"datasets({data!r}) gives {given}, and no {' and no '.join(map(repr, missing))}"
        raise InputError(str(file), problem, _EXPECTED, _FORM)
    for split in SPLITS:
        if not (hasattr(found[split], "__len__") and hasattr(found[split], "__getitem__")):
            problem = f"the {split} dataset is a {type(found[split]).__name__}"
            raise InputError(str(file), problem, "a torch Dataset with a length", _FORM)
        if not len(found[split]):
            raise InputError(str(file), f"the {split} dataset is empty", "at least one item", _FORM)
    return {split: found[split] for split in SPLITS}


def _of_module(found: Any) -> dict[str, Dataset[Any]]:
    """The datasets behind the loaders of a LightningDataModule."""
    found.prepare_data()
    for stage in ("fit", "test"):
        found.setup(stage)
    loaders = {"train": found.train_dataloader(), "val": found.val_dataloader(), "test": found.test_dataloader()}
    return {split: _only(split, loader).dataset for split, loader in loaders.items()}


def _only(split: str, loaders: Any) -> Any:
    """The loader of a split, of which Lightning takes several; raises ValueError where there are."""
    several = list(loaders.values()) if isinstance(loaders, Mapping) else loaders
    if not isinstance(several, Sequence):
        return loaders
    if len(several) != 1:
        raise ValueError(f"{split}_dataloader gives {len(several)} loaders, and one is expected")
    return several[0]


def _identity(datasets: Mapping[str, Dataset[Any]], data: str) -> Sequence[object]:
    """What the data are known by: what the datasets say, else names, sizes and times of all files."""
    if all(hasattr(dataset, "identity") for dataset in datasets.values()):
        return [dataset.identity for dataset in datasets.values()]  # type: ignore[attr-defined]
    root = Path(data)
    if not root.exists():
        return [data]
    digest = hashlib.sha256()
    for path in sorted([root, *root.rglob("*")]):
        if path.is_file():
            state = path.stat()
            digest.update(f"{path.relative_to(root)} {state.st_size} {state.st_mtime_ns}\n".encode())
    return [str(root.resolve()), digest.hexdigest()]


def _classes(dataset: Any) -> tuple[str, ...]:
    """The names of its classes, or of the dataset that it is a subset of; empty where there are none."""
    while not hasattr(dataset, "classes") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    return tuple(map(str, getattr(dataset, "classes", None) or ()))


def _first(reader: "_Reader", skip_bad: bool) -> Arrays:
    """The first item, which all others must be like; with ``skip_bad`` the first that can be read."""
    for index in range(len(reader)):
        found = reader[index]
        if not isinstance(found, InputError):
            return found
        if not skip_bad or index == _MOST_BAD - 1:
            raise found
    raise InputError(str(reader.file), "holds no train item that can be read", "at least one", _FORM)


class _Reader(Dataset[Any]):
    """The items of a dataset as arrays by name; what is wrong with one comes in its place, as an InputError."""

    def __init__(self, dataset: Any, split: str, file: Path) -> None:
        self.dataset, self.split, self.file = dataset, split, file

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Arrays | InputError:
        try:
            return self._arrays(index)
        except InputError as error:
            return error
        except (Exception, SystemExit) as error:  # whatever the user's code raises
            problem = f"item {index} of {self.split} fails ({reason(error, self.file)})"
            return InputError(str(self.file), problem, "an input and its target", "See --skip-bad.")

    def name(self, index: int) -> str:
        return self._told("names", index) or f"{self.split}/{index}"

    def group(self, index: int) -> str:
        """What belongs together in tests."""
        return self._told("groups", index) or self.name(index)

    def _told(self, attribute: str, index: int) -> str:
        """What a list of the dataset says of an item; empty without one, or where it is a list of something else."""
        told = getattr(self.dataset, attribute, None)
        return str(told[index]) if isinstance(told, Sequence) and len(told) == len(self) else ""

    def _arrays(self, index: int) -> Arrays:
        item = self.dataset[index]
        where = f"item {index} of {self.split}"
        if not isinstance(item, tuple | list) or len(item) != 2:
            kind = f"a {type(item).__name__}" if not isinstance(item, tuple | list) else f"{len(item)} values"
            raise InputError(str(self.file), f"{where} is {kind}", "a pair of an input and its target", _FORM)
        image = self._array(item[0], f"the input of {where}")
        if image.ndim != 3 or not (image.dtype == np.uint8 or image.dtype.kind == "f"):
            problem = f"the input of {where} is {image.dtype} of shape {list(image.shape)}"
            raise InputError(str(self.file), problem, "C x H x W, uint8 for images or float32", _FORM)
        if image.dtype.kind == "f" and not np.isfinite(image).all():
            problem = f"the input of {where} holds {int((~np.isfinite(image)).sum())} values that are not finite"
            raise InputError(str(self.file), problem, "numbers", "See --skip-bad.")
        targets = item[1]
        if isinstance(targets, Mapping):
            named = {f"{TARGET}.{name}": value for name, value in targets.items()}
        elif isinstance(targets, tuple | list):
            named = {f"{TARGET}.{place}": value for place, value in enumerate(targets)}
        else:
            named = {TARGET: targets}
        if not named:
            raise InputError(str(self.file), f"the target of {where} is empty", "numbers", _FORM)
        return {"image": _stored(image)} | {
            name: _stored(self._array(value, f"the {name.replace('.', ' ')} of {where}"))
            for name, value in named.items()
        }

    def _array(self, value: Any, what: str) -> np.ndarray:
        """A value as an array; raises InputError for what is no numbers."""
        array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        if array.dtype.kind not in "biuf":
            shown = f"a {type(value).__name__}" + (f", {value!r:.40}" if isinstance(value, str) else "")
            raise InputError(str(self.file), f"{what} is {shown}", "a tensor of numbers", _FORM)
        return array.astype(np.float32) if array.dtype.kind == "f" else array


def _stored(array: np.ndarray) -> np.ndarray:
    """A target in a type that HDF5 and torch share."""
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    elif array.dtype.kind == "u" and array.dtype != np.uint8:
        array = array.astype(np.int64)  # torch computes with no others
    return np.ascontiguousarray(array).reshape(array.shape)


def _items(reader: _Reader, layout: Layout, start: int) -> Generator[Item | InputError]:
    """The items from one on in order, read by processes of their own where there are many."""
    rest = range(start, len(reader))
    workers = min(len(os.sched_getaffinity(0)), _MOST_WORKERS) if len(rest) >= _WORTH_WORKERS else 0
    loader = DataLoader(Subset(reader, rest), batch_size=None, num_workers=workers, collate_fn=_as_it_is)
    for index, found in zip(rest, _read(loader, reader), strict=True):
        if isinstance(found, InputError):
            yield found
            continue
        shapes: Layout = {name: (array.dtype.name, array.shape) for name, array in found.items()}
        if shapes != layout:
            problem = f"item {index} of {reader.split} is {_shown(shapes)}"
            yield InputError(str(reader.file), problem, f"{_shown(layout)} as the first of train", "See --skip-bad.")
            continue
        yield Item(found, reader.group(index), reader.name(index))


def _read(loader: DataLoader[Any], reader: _Reader) -> Generator[Arrays | InputError]:
    try:
        yield from loader
    except RuntimeError as error:  # torch's, of a worker that the user's code or the system has ended
        problem = f"the {reader.split} dataset ends the process that reads it ({str(error).splitlines()[0]})"
        raise InputError(str(reader.file), problem, "code that goes on, in less memory") from error


def _as_it_is(found: Any) -> Any:
    return found


def _shown(layout: Layout) -> str:
    return ", ".join(f"{name} {dtype} {list(shape)}" for name, (dtype, shape) in layout.items())
