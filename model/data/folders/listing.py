"""Which picture files a folder holds, without opening one.

Links are followed, also out of the folder, as data sets are often made of them; a note says how many there are. Files
whose names begin with a dot, and those that are no pictures by their suffix, are left out and counted.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from model.data.folders.pictures import shown
from model.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff", ".bmp", ".webp")
_SHOWN_ERRORS = 10


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A file by its name relative to the root of the data, its size, and when it changed; -1 of a broken link."""

    name: str
    size_bytes: int
    changed_ns: int


@dataclass(frozen=True)
class Found:
    """Pictures in the order of their names, how many files of which suffix are left out, and links that lead out."""

    pictures: tuple[PictureFile, ...]
    left_out: Counter[str]
    links_out: int


def list_pictures(root: Path, folder: str = "") -> Found:
    """All pictures in a folder below the root, and in its folders.

    Raises InputError where a folder cannot be read or is a link to one it is in, or a name is not text.
    """
    home, left_out, pictures = root.resolve(), Counter[str](), []
    links_out = int(not (root / folder).resolve().is_relative_to(home))
    for entry in _below(root / folder, ()):
        if entry.is_symlink() and not Path(os.path.realpath(entry.path)).is_relative_to(home):
            links_out += 1
        if _is_folder(entry):
            continue
        suffix = os.path.splitext(entry.name)[1].lower()
        if entry.name.startswith("."):
            left_out["hidden"] += 1
        elif suffix not in SUFFIXES:
            left_out[suffix or "no suffix"] += 1
        else:
            pictures.append(_picture(root, entry))
    return Found(tuple(sorted(pictures, key=lambda one: one.name)), left_out, links_out)


def subfolders(folder: Path) -> tuple[str, ...]:
    """The names of the folders in a folder, sorted, without hidden ones; raises InputError where it cannot be read."""
    return tuple(sorted(one.name for one in _entries(folder) if _is_folder(one) and not one.name.startswith(".")))


def require_folder(data: Path, expected: str) -> None:
    """Raise InputError unless the data is a folder."""
    if not os.path.isdir(data):  # unlike Path.is_dir, also where no file system takes so long a name
        raise InputError(shown(data), "is not a folder" if os.path.exists(data) else "does not exist", expected)


def note_of(found: Iterable[Found], *others: str) -> str:
    """What the user is told about the files: those left out by suffix, links, and what else there is to say."""
    left_out, links_out = Counter[str](), 0
    for one in found:
        left_out += one.left_out
        links_out += one.links_out
    parts = [other for other in others if other]
    if left_out:
        kinds = ", ".join(f"{suffix} {count}" for suffix, count in sorted(left_out.items()))
        parts.append(f"left out: {left_out.total()} files that are no pictures ({kinds})")
    if links_out:
        parts.append(f"followed: {links_out} links out of the folder")
    return "; ".join(parts)


def raise_first(errors: list[InputError], place: Path) -> None:
    """Raise the first errors together, and how many more there are, if there are any."""
    more = len(errors) - _SHOWN_ERRORS
    if more > 0:
        errors = [*errors[:_SHOWN_ERRORS], InputError(shown(place), f"{more} more files are wrong")]
    if errors:
        raise InputError.all(errors)


def _below(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[os.DirEntry[str]]:
    """Everything in a folder and its folders but what hidden ones hold; ``above`` are device and inode of those around.

    Raises InputError where a link leads back up, which would never end.
    """
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise InputError(shown(folder), "is a link to a folder that it is in", "folders that end", "Remove the link.")
    for entry in _entries(folder):
        if not _is_folder(entry):
            yield entry
        elif not entry.name.startswith("."):
            yield entry
            yield from _below(folder / entry.name, (*above, here))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _picture(root: Path, entry: os.DirEntry[str]) -> PictureFile:
    name = Path(entry.path).relative_to(root).as_posix()
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(shown(Path(entry.path)), "has a name that is not text", "UTF-8", "Rename it.") from None
    try:
        status = entry.stat()
    except OSError:  # a broken link; reading it says so
        return PictureFile(name, -1, -1)
    return PictureFile(name, status.st_size, status.st_mtime_ns)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise InputError(shown(folder), f"cannot be read ({error})", "a folder that may be read") from None
