"""What is in a pack and in a half-written one, as nothing but tests reads it."""

import json
from pathlib import Path

import h5py

from model.data.pack import Pack


def sources(pack: Pack, split: str) -> list[str]:
    """A file name, or the number of a rendered view, of every picture."""
    with h5py.File(pack.path, "r") as file:
        return [text.decode() for text in file[split]["source"][:]]


def content(path: Path) -> dict[str, object]:
    """All that is in a pack, by name."""
    with h5py.File(path) as file:
        parts = {f"{s}/{name}": file[s][name][:] for s in ("train", "val", "test") for name in file[s]}
        return {name: part.tolist() for name, part in parts.items()} | dict(file.attrs)


def marked(packs: Path) -> int:
    """How many pictures are marked as packed."""
    lines = marks_file(packs).read_bytes().splitlines()
    return json.loads(lines[-1]).get("done", 0)


def marks_file(packs: Path) -> Path:
    return next(packs.glob(".*.marks"))


def half_file(packs: Path) -> Path:
    return next(packs.glob(".*.half"))
