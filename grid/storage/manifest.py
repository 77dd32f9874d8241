"""Lists of files that came from elsewhere: no name in them leads out of a folder, every file has its checksum."""

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any


def are_files(files: dict[Any, Any]) -> bool:
    """Whether this can be a list of files: names inside a folder, with a SHA-256 each."""
    return all(is_inner(name) and is_sha256(sha256) for name, sha256 in files.items())


def is_inner(name: object) -> bool:
    """Whether a name stays inside the folder that it is joined to."""
    if not isinstance(name, str) or not name or "\0" in name or "\\" in name:
        return False
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and path.as_posix() == name and name != "."


def inside(folder: Path, name: str) -> Path:
    """The path of a name inside a folder; raises ValueError for one that leads out of it."""
    if not is_inner(name):
        raise ValueError(f"{name!r} does not name a file inside {folder}")
    return folder / name


def is_sha256(value: object) -> bool:
    """Whether this is a SHA-256 as hex."""
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def parsed_json(data: bytes | None) -> Any:
    """What a JSON text says; None where it is missing or broken."""
    try:
        return json.loads(data or b"")
    except ValueError:
        return None
