"""Copies of the user's files in the storage, since the originals may change while a grid runs."""

import hashlib
from pathlib import Path

from model.errors import InputError
from model.files import write_atomically


def kept_copy(file: Path, folder: Path) -> Path:
    """The copy of ``file`` below ``folder``, named by its content; made where it is missing.

    Raises InputError where the folder cannot be written to.
    """
    content = file.read_bytes()
    kept = folder / hashlib.sha256(content).hexdigest()[:12] / file.name
    if not kept.is_file():
        try:
            write_atomically(kept, content)
        except OSError as error:
            problem, hint = f"cannot be written to ({error.strerror})", "Choose another with --storage."
            raise InputError(str(folder), problem, "a folder for results", hint) from error
    return kept
