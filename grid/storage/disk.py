"""Whether a storage can still be written to, and how much room a grid needs in it."""

import os
import secrets
import shutil
from pathlib import Path

from grid.storage.result_store import StageStore
from model.errors import InputError

PROBE_BYTES = 16 * 2**20
"""More than a stage writes: a disk on which this much fits is not what made a stage fail."""


def storage_problem(root: Path) -> str | None:
    """Why ``root`` cannot be written to (full, read-only, gone), with its path; None where it can."""
    problem = _problem(root)
    return f"{root} {problem}" if problem else None


def require_writable(root: Path) -> None:
    """Raise InputError where nothing can be written: before a run begins rather than in the middle."""
    if problem := _problem(root):
        hint = "Choose another with --storage, or make room."
        raise InputError(str(root), problem, "a folder for results", hint)


def _problem(root: Path) -> str | None:
    """What a probe file says: a full disk, for one, shows when it is written and forced to the disk, not before."""
    probe = root / f".probe-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        try:
            with probe.open("wb") as file:
                for _ in range(16):
                    file.write(bytes(PROBE_BYTES // 16))
                file.flush()
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        return f"cannot be written to ({error.strerror or error}{_free(root)})"
    return None


def needed_mb(store: StageStore, stages: int) -> float:
    """About how many MB so many more stages take, by those that are there; 5 MB each where there are none."""
    sizes = [
        sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        for folder in (store.root / "stages").iterdir()
        if not folder.name.startswith(".") and folder.is_dir()
    ]
    return stages * (sum(sizes) / len(sizes) / 1e6 if sizes else 5.0)


def _free(root: Path) -> str:
    try:
        return f"; {shutil.disk_usage(root).free / 1e6:.0f} MB free"
    except OSError:
        return ""
