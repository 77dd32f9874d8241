"""The pictures of a few test images that an evaluation keeps for the report, in ``samples.npz``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TRUTH, _FOUND = "truth.", "found."
Panels = Mapping[str, NDArray[np.uint8]]
"""Pictures [K, H, W, 3] by what stands above them."""


@dataclass(frozen=True)
class Samples:
    """Test images by their ``places`` [K], the ``reasons`` [K] for which they are shown, and their pictures.

    ``truth`` is the same for all networks, ``found`` is what one of them made of the images. ``problem`` says why there
    are no pictures, where the task's code drew none.
    """

    places: tuple[int, ...]
    reasons: tuple[str, ...]
    truth: Panels = field(default_factory=dict)
    found: Panels = field(default_factory=dict)
    problem: str = ""


def save_samples(path: Path, samples: Samples) -> None:
    """Write the file; pictures are compressed."""
    arrays: dict[str, Any] = {f"{_TRUTH}{name}": panel for name, panel in samples.truth.items()}
    arrays |= {f"{_FOUND}{name}": panel for name, panel in samples.found.items()}
    arrays |= {name: np.array(getattr(samples, name)) for name in ("places", "reasons", "problem")}
    np.savez_compressed(path, **arrays)


def load_samples(path: Path) -> Samples:
    """Read what ``save_samples`` wrote."""
    with np.load(path) as file:
        found = {
            prefix: {name.removeprefix(prefix): file[name] for name in file.files if name.startswith(prefix)}
            for prefix in (_TRUTH, _FOUND)
        }
        places, reasons = tuple(map(int, file["places"])), tuple(map(str, file["reasons"]))
        return Samples(places, reasons, found[_TRUTH], found[_FOUND], str(file["problem"]))
