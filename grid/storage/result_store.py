"""The content-addressed store of finished stages: a result is there, whole and checked, or not at all."""

import contextlib
import json
import os
import platform
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from grid.storage.locks import locked
from grid.storage.remote import RESULT, Remote
from model.errors import InputError
from model.files import file_sha256

RECORD_KEYS = ("stage", "settings", "inputs", "metrics", "asserted", "history", "seconds")
ORPHAN_AGE_S = 24 * 3600.0
TRANSFERS = 8


class StageStore:
    """Results by stage id in ``<root>/stages/<id>/``, written aside and renamed: a kill leaves no half.

    Beside them: ``scratch/<id>`` (resumable work in progress), ``locks`` and ``quarantine`` (broken results).
    With a ``remote`` the folder is this machine's copy of it: what is verified is fetched from there, what is
    written is uploaded. Raises InputError where the folder cannot be written to.
    """

    def __init__(self, root: Path, remote: Remote | None = None) -> None:
        self.root = Path(root).absolute()
        self.remote = remote
        try:
            for name in ("stages", "scratch", "locks", "quarantine"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = f"cannot be written to ({error.strerror})"
            hint = "Choose another with --storage."
            raise InputError(str(self.root), problem, "a folder for results", hint) from error
        self._sweep()

    def path(self, node_id: str) -> Path:
        """The folder of a result, whether it is there or not."""
        return self.root / "stages" / _checked(node_id)

    def has(self, node_id: str) -> bool:
        """Whether a result is in the folder; a remote is not asked."""
        return (self.path(node_id) / RESULT).is_file()

    def record(self, node_id: str) -> dict[str, Any]:
        """The ``result.json`` of a stage; raises FileNotFoundError where it is not in the store."""
        record: dict[str, Any] = json.loads((self.path(node_id) / RESULT).read_text(encoding="utf-8"))
        return record

    def records(self) -> Iterator[dict[str, Any]]:
        """The records of all results, in no order; those that cannot be read are left out."""
        for path in (self.root / "stages").glob(f"*/{RESULT}"):
            with contextlib.suppress(OSError, ValueError):
                yield json.loads(path.read_text(encoding="utf-8"))

    def scratch(self, node_id: str) -> Path:
        """A folder that outlives a kill, for work that resumes; it goes when the result is written."""
        folder = self.root / "scratch" / _checked(node_id)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextlib.contextmanager
    def writer(self, node_id: str) -> Iterator[Path]:
        """A folder to fill with files and a record (``write_record``); it becomes the result on a clean exit.

        An exception leaves nothing. Where two write the same stage, the first to finish wins and the other's
        folder is dropped. With a remote the result is then uploaded. Raises ValueError for a record that is missing,
        incomplete or of another stage id, and OSError for an upload that failed: the result stays in the folder,
        and the next claim uploads it.
        """
        final = self.path(node_id)
        with _aside(final) as aside:
            yield aside
            _finalise(aside, node_id)
            _sync(aside)
            try:
                aside.rename(final)
            except OSError:
                if not self._intact(node_id):  # what was there is broken, and in quarantine now
                    aside.rename(final)
        _sync_folder(final.parent)
        shutil.rmtree(self.root / "scratch" / node_id, ignore_errors=True)
        if self.remote is not None:
            self._share(node_id, self.remote)

    @contextlib.contextmanager
    def claim(self, node_id: str) -> Iterator[bool]:
        """Hold a stage so that no other process computes it; yields whether it is in the store by now.

        Waits while another process holds it. The kernel releases the lock of a process that dies. A claim
        within a claim of the same stage waits for itself for ever. With a remote, in the store means here and there.
        """
        with locked(self._lock_path(node_id)):
            yield self.has(node_id) if self.remote is None else self._share(node_id, self.remote)

    def verify(self, node_id: str) -> bool:
        """Whether a result is there, its files as in its record; a broken one goes to ``quarantine``.

        What the folder lacks is fetched from the remote, where there is one; raises OSError where that fails.
        """
        return self._intact(node_id) or (self.remote is not None and self._pull(node_id, self.remote))

    def verify_all(self, node_ids: Iterable[str]) -> set[str]:
        """Those of the results that are there, whole; with a remote, here and there: each side gets what it lacks."""
        remote = self.remote
        if remote is None:
            return {node_id for node_id in node_ids if self.verify(node_id)}
        listed = remote.stages()

        def shared(node_id: str) -> bool:
            there = listed.get(node_id, {})
            if self._intact(node_id):
                return remote.holds(self.path(node_id), there) or self._share(node_id, remote)
            return there.get(RESULT, 0) > 0 and self._share(node_id, remote)

        unique = list(dict.fromkeys(node_ids))
        with ThreadPoolExecutor(TRANSFERS) as pool:
            return {node_id for node_id, found in zip(unique, pool.map(shared, unique), strict=True) if found}

    def _intact(self, node_id: str) -> bool:
        """Whether the folder has a result, its files as in its record; a broken one goes to ``quarantine``."""
        if not self.path(node_id).is_dir():
            return False
        try:
            record = self.record(node_id)
            intact: bool = record["id"] == node_id and record["files"] == _checksums(self.path(node_id))
        except (OSError, ValueError, KeyError, TypeError):
            intact = False
        if not intact:
            target = self.root / "quarantine" / f"{node_id}-{time.time_ns()}"
            with contextlib.suppress(FileNotFoundError):  # another process was as quick
                self.path(node_id).rename(target)
        return intact

    def _share(self, node_id: str, remote: Remote) -> bool:
        """Give both sides the result that one has; where they differ, the remote's was first. False: neither has it."""
        for _ in range(3):
            if not self.verify(node_id):
                return False
            try:
                if remote.push_stage(node_id, self.path(node_id)):
                    return True
            except OSError as error:
                kept = f"it is kept in {self.path(node_id)}, and a next run here only uploads it"
                raise OSError(f"{node_id} is not uploaded: {error}; {kept}") from error
            if self._pull(node_id, remote, replace=True):
                return True
        raise OSError(f"{remote}: {node_id} changes whenever it is read")

    def _pull(self, node_id: str, remote: Remote, replace: bool = False) -> bool:
        """Fetch a result that is whole; one process of this machine at a time."""
        final = self.path(node_id)
        with locked(self._lock_path(node_id, "-pull")):
            if not replace and self._intact(node_id):
                return True
            with _aside(final) as aside:
                if not remote.pull_stage(node_id, aside):
                    return False
                _sync(aside)
                with contextlib.nullcontext() if not replace else _aside(final) as old:
                    if old is not None:
                        final.rename(old)
                    with contextlib.suppress(OSError):  # a writer was quicker
                        aside.rename(final)
            _sync_folder(final.parent)
            return self._intact(node_id)

    def _lock_path(self, node_id: str, kind: str = "") -> Path:
        return self.root / "locks" / f"{_checked(node_id)}{kind}.lock"

    def _sweep(self) -> None:
        """Remove folders that a killed writer left: older than a day, and of no stage in progress."""
        for aside in (self.root / "stages").glob(".tmp-*-*-*"):
            try:
                if time.time() - aside.stat().st_mtime < ORPHAN_AGE_S:
                    continue
                with locked(self._lock_path(aside.name.split("-")[1]), wait=False):
                    shutil.rmtree(aside, ignore_errors=True)
            except (FileNotFoundError, BlockingIOError):
                continue


@contextlib.contextmanager
def _aside(final: Path) -> Iterator[Path]:
    """A new folder beside ``final``, to be renamed; what is left of it goes."""
    aside = final.parent / f".tmp-{final.name}-{os.getpid()}-{secrets.token_hex(4)}"
    aside.mkdir()
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write the record of a stage: all of RECORD_KEYS; id, host and checksums are added by ``writer``.

    Raises ValueError for NaN and infinity, which JSON does not have: a figure that does not exist is None.
    """
    missing = [key for key in RECORD_KEYS if key not in record]
    if missing:
        raise ValueError(f"{folder}: the record of a stage lacks {', '.join(missing)}")
    text = json.dumps(record, indent=1, sort_keys=True, allow_nan=False)
    (folder / RESULT).write_text(text + "\n", encoding="utf-8")


def _checked(node_id: str) -> str:
    """The id, if it can be a folder name and nothing else."""
    if not node_id.isalnum():
        raise ValueError(f"{node_id!r} is not a stage id; expected letters and digits")
    return node_id


def _checksums(folder: Path) -> dict[str, str]:
    """sha256 of every file of a result but its record, by relative path."""
    sums = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder).as_posix()
        if name != RESULT:
            sums[name] = file_sha256(file)
    return sums


def _finalise(folder: Path, node_id: str) -> None:
    """Complete the record with what only the store knows."""
    file = folder / RESULT
    if not file.is_file():
        raise ValueError(f"{node_id}: the stage wrote no record")
    record = json.loads(file.read_text(encoding="utf-8"))
    if record.get("id", node_id) != node_id:
        raise ValueError(f"{node_id}: the stage wrote the record of {record['id']}")
    write_record(folder, {**record, "id": node_id, "host": platform.node(), "files": _checksums(folder)})


def _sync(folder: Path) -> None:
    """Force a tree to the disk, files before the folders that name them."""
    for parent, _, files in os.walk(folder, topdown=False):
        for name in files:
            with (Path(parent) / name).open("rb") as stream:
                os.fsync(stream.fileno())
        _sync_folder(Path(parent))


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
