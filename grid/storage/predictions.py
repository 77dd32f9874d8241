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


def load_predictions(folder: Path, split: str) -> Nested:
    """Read what ``save_predictions`` wrote; raises FileNotFoundError where there is nothing."""
    if (folder / FILES[split]).exists():
        return torch.from_numpy(np.load(folder / FILES[split]))
    stem = Path(FILES[split]).stem
    names = sorted(path.name.removeprefix(f"{stem}.").removesuffix(".npy") for path in folder.glob(f"{stem}.*.npy"))
    if not names:
        raise FileNotFoundError(f"{folder} has no predictions of {split}")
    found = {name: torch.from_numpy(np.load(folder / _file(split, name))) for name in names}
    return tuple(found[name] for name in sorted(found, key=int)) if all(map(str.isdigit, names)) else found


def _file(split: str, name: str) -> str:
    return FILES[split] if not name else f"{Path(FILES[split]).stem}.{name}.npy"
