"""Copies of the user's files in the storage: his own may change while a grid runs, and other machines have none."""

import hashlib
import os
from pathlib import Path

from model.errors import InputError


def kept_copy(file: Path, folder: Path) -> Path:
    """The copy of ``file`` below ``folder``, named by its content; made where it is missing.

    Raises InputError where the folder cannot be written to.
    """
    content = file.read_bytes()
    kept = folder / hashlib.sha256(content).hexdigest()[:12] / file.name
    if not kept.is_file():
        aside = kept.with_name(f".{kept.name}.{os.getpid()}")
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(content)
            aside.replace(kept)
        except OSError as error:
            problem, hint = f"cannot be written to ({error.strerror})", "Choose another with --storage."
            raise InputError(str(folder), problem, "a folder for results", hint) from error
    return kept
