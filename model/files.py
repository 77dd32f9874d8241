"""Files that are there whole or not at all, and their checksums."""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to, which takes its place on a clean exit; an exception leaves nothing.

    Readers see the old file or the new one, never half of one. Missing folders are made. A killed writer leaves a
    hidden file, whose name ends like that of ``path``, then the process and a random number.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name[-40:]}.{os.getpid()}-{secrets.token_hex(4)}")  # [-40:]: names have a limit
    try:
        yield aside
        os.replace(aside, path)
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()


def write_atomically(path: Path, content: str | bytes) -> Path:
    """Write a file, text as UTF-8, so that readers see the old one or the new one; returns its path."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    with replacing(path) as aside:
        aside.write_bytes(data)
    return path


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
