"""What a pack says of where its pictures are from, which nothing but tests reads."""

import h5py

from model.data.pack import Pack


def sources(pack: Pack, split: str) -> list[str]:
    """A file name, or the number of a rendered view, of every picture."""
    with h5py.File(pack.path, "r") as file:
        return [text.decode() for text in file[split]["source"][:]]
