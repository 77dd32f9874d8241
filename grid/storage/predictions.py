"""What a network gave for the images of a split, as NumPy files: one, or one for each of several outputs."""

from pathlib import Path

import numpy as np
import torch

from grid.planning.output_files import PREDICTIONS
from model.tasks.nested import Nested, leaves

FILES = {"test": PREDICTIONS, "val": f"val_{PREDICTIONS}"}
"""By split; those of validation are kept of the float root and the int8 networks."""


def save_predictions(folder: Path, split: str, outputs: Nested) -> None:
    """Write the outputs, [N, ...] each; that of the name ``a`` becomes ``predictions.a.npy``."""
    for name, tensor in leaves(outputs).items():
        np.save(folder / _file(split, name), tensor.numpy())


def load_predictions(folder: Path, split: str, first: int | None = None) -> Nested:
    """Read what ``save_predictions`` wrote, or the ``first`` so many images of it.

    Raises FileNotFoundError where there is nothing.
    """

    def read(file: Path) -> torch.Tensor:
        return torch.from_numpy(np.load(file) if first is None else np.load(file, mmap_mode="r")[:first].copy())

    if (folder / FILES[split]).exists():
        return read(folder / FILES[split])
    stem = Path(FILES[split]).stem
    names = sorted(path.name.removeprefix(f"{stem}.").removesuffix(".npy") for path in folder.glob(f"{stem}.*.npy"))
    if not names:
        raise FileNotFoundError(f"{folder} has no predictions of {split}")
    found = {name: read(folder / _file(split, name)) for name in names}
    return tuple(found[name] for name in sorted(found, key=int)) if all(map(str.isdigit, names)) else found


def _file(split: str, name: str) -> str:
    return FILES[split] if not name else f"{Path(FILES[split]).stem}.{name}.npy"
