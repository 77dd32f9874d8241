"""Where runs are in a storage: ``<storage>/runs/<name>/``; those of older versions are directly in the storage."""

import re
from pathlib import Path

from grid.secrets import masked
from grid.storage.remote import Remote, open_storage
from model.errors import InputError

RUNS = "runs"
_FILES = ("run.json", "plan.json")
"""A folder directly in the storage is a run where it has one of these."""


def run_path(root: Path, name: str) -> str:
    """The folder of a run below the storage ``root``: where it is, or where it will be."""
    new = f"{RUNS}/{name}"
    old = not (root / new).is_dir() and any((root / name / file).is_file() for file in _FILES)
    return name if old else new


def run_folder(root: Path, name: str) -> Path:
    """The folder of a run: where it is, or where it will be."""
    return root / run_path(root, name)


def run_names(root: Path, remote: Remote | None = None) -> list[str]:
    """The names of all runs of a storage that can be resumed, of this machine and in the URI's ``runs``."""
    names = {file.parent.name for pattern in (f"{RUNS}/*", "*") for file in root.glob(f"{pattern}/{_FILES[0]}")}
    if remote is not None:
        names |= {path.partition("/")[0] for path in remote.objects.sizes(RUNS)}
    return sorted(names)


def known_run(flag: str, name: str, storage: str) -> Path:
    """The folder of a run, as it is in the storage now; raises InputError that names the runs that are there."""
    checked_run_name(name)
    root, remote = open_storage(storage)
    if remote is not None and not remote.pull_folder(f"{RUNS}/{name}"):
        remote.pull_folder(name)
    folder = run_folder(root, name)
    if not folder.is_dir():
        runs = run_names(root, remote)
        expected = "" if runs else "a run, and there is none yet"
        raise InputError(flag, f"is not a run in {masked(storage)}", expected, value=repr(name), options=runs)
    return folder


def share_run(folder: Path, root: Path, remote: Remote | None) -> None:
    """Upload a run's folder where the storage is a URI."""
    if remote is not None:
        remote.push_folder(folder.relative_to(root).as_posix())


def checked_run_name(name: str) -> str:
    """The name, if it can be a folder; raises InputError."""
    if not re.fullmatch(r"[\w.+=-]{1,100}", name) or name.startswith(".") or len(name.encode()) > 200:
        raise InputError("--run-name", "cannot be a folder", "letters, digits, and _ . + = -", value=repr(name))
    return name
