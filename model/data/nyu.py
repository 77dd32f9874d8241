"""NYUv2 in the three layouts in which people have it on disk: recognized, listed, split.

- nyu-csv: the Kaggle copy. ``nyu2_train.csv`` and ``nyu2_test.csv`` list colour and depth; 8-bit depth is
  255 = 10 m, 16-bit depth is millimetres.
- nyu-mat: the official labelled file (HDF5), stored by MATLAB with height and width swapped.
- nyu-fastdepth: one HDF5 a frame in ``train/<scene>/`` and ``val/``.

Frames of one place are never in two splits, unless the data has one place only, which is then reported.
"""

import csv
import hashlib
import os
import re
from collections import Counter, deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import h5py

from model.data.frame import Frame
from model.data.nyu_frames import Entry, read_frame
from model.errors import InputError

VERSION = 1  # raise it when the same files give other frames
_TEST_SHARE_OF_MAT = 0.2
_SHOWN_ERRORS = 10
_SHOWN = 300  # characters of a name
_MOST_FRAMES = 1_000_000
_MOST_AHEAD = 256 * 2**20  # bytes of frames that wait for their turn


@dataclass(frozen=True)
class Listing:
    """All frames of a data set by split; ``identity`` changes with any file, ``note`` is for the user."""

    origin: str
    frames: dict[str, tuple[Entry, ...]]
    identity: str
    detail: dict[str, str | float | list[str]]
    note: str = ""
    skipped: int = 0


def list_frames(data: Path, val_fraction: float, skip_bad: bool) -> Listing:
    """What ``data`` holds, in which layout and split.

    Raises InputError where it is missing, of no known layout, empty, or lists files that are not there (with
    ``skip_bad`` these are counted and left out).
    """
    layouts = "a folder with nyu2_train.csv and nyu2_test.csv, a labelled .mat, or one with train/ and val/ of .h5"
    if not os.path.exists(data):  # unlike Path.exists, also where no file system takes so long a name
        raise InputError(_printable(data), "does not exist", f'"rooms", or {layouts}')
    if data.is_file():
        return _list_mat(data, val_fraction)
    for lists in (data, data / "data"):
        if (lists / "nyu2_train.csv").is_file() or (lists / "nyu2_test.csv").is_file():
            root = lists.parent if lists.resolve().name == "data" else lists
            return _list_csv(root, lists, val_fraction, skip_bad)
    if any((data / split).is_dir() for split in ("train", "val")):
        return _list_fastdepth(data, val_fraction, skip_bad)
    raise InputError(str(data), "has no known layout", layouts)


def read_frames(listing: Listing, split: str, size: int, first: int = 0) -> Generator[Frame | InputError]:
    """The frames of a split from ``first`` on, in order, ``size`` x ``size`` (depth a quarter), or what is wrong.

    Decoders keep no lock of Python's, so threads use all cores. They are a few frames ahead of the reader, or fewer
    where frames are large.
    """

    def read(entry: Entry) -> Frame | InputError:
        try:
            return read_frame(listing.origin, entry, size)
        except InputError as error:
            return error

    threads = len(os.sched_getaffinity(0))
    ahead = max(2 * threads, min(16 * threads, _MOST_AHEAD // (4 * size**2)))
    waiting: deque[Future[Frame | InputError]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for entry in listing.frames[split][first:]:
            waiting.append(pool.submit(read, entry))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _list_csv(root: Path, lists: Path, val_fraction: float, skip_bad: bool) -> Listing:
    frames: dict[str, list[Entry]] = {}
    errors: list[InputError] = []
    digest = hashlib.sha256()
    for split in ("train", "test"):
        path = lists / f"nyu2_{split}.csv"
        if not path.is_file():
            raise InputError(str(path), "is missing", "a CSV list of colour and depth files")
        try:
            with open(path, newline="", encoding="utf-8-sig") as file:
                rows = [(number, row) for number, row in enumerate(csv.reader(file), 1) if row]
        except (OSError, ValueError, csv.Error) as error:
            raise InputError(str(path), f"cannot be read as CSV ({error})", "text in UTF-8") from None
        if not rows:
            raise InputError(str(path), "is empty", "rows of colour file, depth file")
        frames[split] = []
        for number, row in rows:
            try:
                entry = _csv_entry(root, path, number, row)
                for file_path in (entry.image, entry.depth):
                    status = file_path.stat()
                    digest.update(f"{split} {entry.name} {status.st_size} {status.st_mtime_ns}\n".encode())
                frames[split].append(entry)
            except InputError as error:
                errors.append(error)
    _report(errors, skip_bad, lists, "rows")
    for split, entries in frames.items():
        if not entries:
            raise InputError(str(lists / f"nyu2_{split}.csv"), "has no usable row", "existing files")
    return _split_train("nyu-csv", frames["train"], frames["test"], val_fraction, digest.hexdigest(), len(errors))


def _report(errors: list[InputError], skip_bad: bool, place: Path, what: str) -> None:
    """Raise the first of the errors, and how many more there are, unless they are to be skipped."""
    if errors and not skip_bad:
        more = len(errors) - _SHOWN_ERRORS
        if more > 0:
            errors[_SHOWN_ERRORS:] = [InputError(str(place), f"{more} more {what} are wrong", "", "See --skip-bad.")]
        raise InputError.all(errors)


def _csv_entry(root: Path, path: Path, number: int, row: list[str]) -> Entry:
    where = f"{path} row {number}"
    if len(row) != 2 or not all(cell.strip() for cell in row):
        hint = "Is a quotation mark left open?" if "\n" in "".join(row) else ""
        raise InputError(where, f"{','.join(row)!r:.{_SHOWN}} has {len(row)} columns", "colour file,depth file", hint)
    names = [cell.strip() for cell in row]
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(where, f"{name!r:.{_SHOWN}} leaves the data folder", f"a path below {root}")
    if "_depth." in names[0] or "_colors." in names[1] or names[1].lower().endswith((".jpg", ".jpeg")):
        raise InputError(where, f"{names[0]!r}, {names[1]!r}: columns are mixed up", "colour file,depth file")
    for name in names:
        if not os.path.isfile(root / name):
            raise InputError(where, f"{_printable(root / name)} is missing", "an existing file", "See --skip-bad.")
    image = Path(names[0])
    return Entry(where, root / names[0], root / names[1], names[0], _place(image.parent.name), _number(image))


def _printable(path: Path) -> str:
    text = str(path)[:_SHOWN]
    return text if text.isprintable() else repr(text)


def _list_fastdepth(root: Path, val_fraction: float, skip_bad: bool) -> Listing:
    frames: dict[str, list[Entry]] = {}
    errors: list[InputError] = []
    digest = hashlib.sha256()
    for split, folder in (("train", root / "train"), ("test", root / "val")):
        frames[split] = []
        for path in sorted(folder.rglob("*.h5")):
            name = path.relative_to(root).as_posix()
            if not path.is_file() or not name.isprintable():
                problem = "is not a file, or a broken link" if name.isprintable() else "has a name that is not text"
                errors.append(InputError(_printable(path), problem, "one HDF5 a frame"))
                continue
            status = path.stat()
            digest.update(f"{split} {name} {status.st_size} {status.st_mtime_ns}\n".encode())
            frames[split].append(Entry(str(path), path, path, name, _place(path.parent.name), _number(path)))
    _report(errors, skip_bad, root, "files")
    for split, folder in (("train", root / "train"), ("test", root / "val")):
        if not frames[split]:
            raise InputError(str(folder), "holds no .h5 file", "one HDF5 a frame with rgb and depth")
    return _split_train("nyu-fastdepth", frames["train"], frames["test"], val_fraction, digest.hexdigest(), len(errors))


def _list_mat(path: Path, val_fraction: float) -> Listing:
    try:
        with h5py.File(path, "r") as file:
            images, depths = file["images"], file["depths"]
            shape, depth_shape = images.shape, depths.shape
            if shape[0] > _MOST_FRAMES:
                raise ValueError(f"it claims to hold {shape[0]} frames")
            scenes = _mat_scenes(file, shape[0])
    except InputError:
        raise
    except Exception as error:  # h5py raises anything on broken bytes
        hint = "Older .mat files must be saved again with -v7.3."
        raise InputError(str(path), f"cannot be read ({error})", "HDF5 with images and depths", hint) from None
    if len(shape) != 4 or shape[1] != 3 or depth_shape != (shape[0], *shape[2:]):
        raise InputError(
            str(path), f"images {shape} and depths {depth_shape} do not fit", "N x 3 x W x H and N x W x H"
        )
    if shape[0] < 3:
        raise InputError(str(path), f"holds {shape[0]} frames", "at least 3, for train, val and test")
    entries = [Entry(f"{path} frame {n}", path, path, f"{path.name}#{n}", scenes[n], n) for n in range(shape[0])]
    status = path.stat()
    identity = f"{path.name} {status.st_size} {status.st_mtime_ns}"
    if len(set(scenes)) >= 3:
        test, rest = _by_place(entries, _TEST_SHARE_OF_MAT)
    else:
        count = max(1, round(_TEST_SHARE_OF_MAT * len(entries)))
        rest, test = entries[:-count], entries[-count:]
    # val_fraction is of all frames, as the official file has no test list and all three shares come from it
    share = min(0.5, val_fraction / (1 - _TEST_SHARE_OF_MAT))
    return _split_train("nyu-mat", rest, test, share, identity, 0)


def _mat_scenes(file: h5py.File, count: int) -> list[str]:
    if "scenes" not in file:
        return ["all"] * count
    texts = ["".join(map(chr, file[reference][:].ravel())) for reference in file["scenes"][:].ravel()]
    if len(texts) != count:
        raise InputError(file.filename, f"names {len(texts)} scenes for {count} images", "one a frame")
    return [_place(text) for text in texts]


def _place(name: str) -> str:
    """The place of a recording: ``kitchen_0001a_out`` and ``kitchen_0001b_out`` were made in one kitchen."""
    return re.sub(r"(_\d{4})[a-z]$", r"\1", name.removesuffix("_out"))


def _number(path: Path) -> int:
    digits = re.findall(r"\d+", path.stem)
    return int(digits[-1]) if digits else 0


def _split_train(
    origin: str, train: list[Entry], test: list[Entry], val_fraction: float, identity: str, skipped: int
) -> Listing:
    train = sorted(train, key=lambda entry: (entry.scene, entry.number))
    detail: dict[str, str | float | list[str]] = {"val_fraction": val_fraction}
    note = ""
    if len({entry.scene for entry in train}) > 1:
        val, train = _by_place(train, val_fraction)
        detail |= {"split": "by place", "val_places": sorted({entry.scene for entry in val})}
    else:
        if len(train) < 2:
            raise InputError(train[0].where, "is the only training frame", "at least 2, one of them for validation")
        count = min(max(1, round(val_fraction * len(train))), len(train) - 1)
        train, val = train[:-count], train[-count:]
        note = f"one place only: val is its last {count} frames, and neighbours of training frames"
        detail |= {"split": "by frame", "note": note}
    frames = {"train": tuple(train), "val": tuple(val), "test": tuple(test)}
    return Listing(origin, frames, identity, detail, note, skipped)


def _by_place(entries: list[Entry], share: float) -> tuple[list[Entry], list[Entry]]:
    """Whole places, by the hash of their names, until they hold ``share`` of the frames; and the rest."""
    sizes = Counter(entry.scene for entry in entries)
    taken: set[str] = set()
    for scene in sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).digest())[:-1]:
        if taken and sum(sizes[name] for name in taken) >= share * len(entries):
            break
        taken.add(scene)
    return [e for e in entries if e.scene in taken], [e for e in entries if e.scene not in taken]
