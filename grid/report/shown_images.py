"""The test images that are shown: which ones, what networks make of depth there, and on which they are worst."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from grid.planning.output_files import PER_IMAGE, SAMPLES
from grid.report.inputs import ReportInputs
from grid.results.ranking import SQNR, Measure, Row, value
from grid.storage.per_image import read_image_figures
from model.images import MAX_DEPTH_M

OF_EACH_KIND = 2
MOST_EVENLY = 4
MOST_NOISE, EVENLY = "most noise", "one of an even spread"


@dataclass(frozen=True)
class ShownImages:
    """Test images: ``titles`` [K], ``image`` uint8 [K,H,W,3], ``truth`` [K,h,w] in metres.

    ``predictions`` and ``references`` are by cell, [K,h,w] in metres. A reference is what the float network predicts
    from which the cell was made; float networks have none.
    """

    titles: tuple[str, ...]
    image: np.ndarray
    truth: np.ndarray
    predictions: Mapping[str, np.ndarray]
    references: Mapping[str, np.ndarray]


def shown_images(inputs: ReportInputs, rows: Sequence[Row]) -> ShownImages | None:
    """Return the images on which the int8 networks of ``rows`` are worst, and a few that are evenly spread.

    Where the packed data are gone, the evenly spread ones that each evaluation kept; None where there are none.
    """
    cells = [row["cell"] for row in rows if row["cell"] in inputs.predictions]
    if inputs.pack is None or not cells:
        return _kept(inputs, [row["cell"] for row in rows if row["cell"] in inputs.samples])
    chosen = chosen_images(inputs, cells, inputs.pack.size("test"))
    places = list(chosen)

    def metres(cell: str, files: Mapping[str, object]) -> np.ndarray:
        return np.asarray(np.load(str(files[cell]), mmap_mode="r")[places, 0], np.float32) * MAX_DEPTH_M

    return ShownImages(
        tuple(f"image {place}: {reason}" for place, reason in chosen.items()),
        inputs.pack.images("test", places).permute(0, 2, 3, 1).numpy(),
        inputs.pack.targets("test", places)[:, 0].numpy() * MAX_DEPTH_M,
        {cell: metres(cell, inputs.predictions) for cell in cells},
        {cell: metres(cell, inputs.references) for cell in cells if cell in inputs.references},
    )


def chosen_images(inputs: ReportInputs, cells: Sequence[str], count: int) -> dict[int, str]:
    """Return which of ``count`` test images are shown, each with the reason: the same ones for all cells.

    By the mean over the quantized networks among ``cells``: most noise against the float network, then most SSIM lost
    against it (where there are figures by image); then evenly spread ones.
    """
    chosen: dict[int, str] = {}
    compared = [cell for cell in cells if cell in inputs.references]
    most_loss = f"most {lost(inputs.measures.headline)}"
    for reason, figures in ((MOST_NOISE, _noise(inputs, compared)), (most_loss, _loss(inputs, compared))):
        ranked = [] if figures is None else np.argsort(-figures, kind="stable").tolist()
        chosen |= dict.fromkeys([place for place in ranked if place not in chosen][:OF_EACH_KIND], reason)
    wanted = min(count - len(chosen), OF_EACH_KIND if chosen else MOST_EVENLY)
    spread = [round((place + 0.5) * count / max(wanted, 1) - 0.5) for place in range(wanted)]
    rest = [place for place in range(count) if place not in chosen]
    for place in spread:
        nearest = min(rest, key=lambda other: abs(other - place))
        rest.remove(nearest)
        chosen[nearest] = EVENLY
    return chosen


def lost(headline: Measure) -> str:
    """Return what it is called that a network is worse than another one."""
    return f"{headline.name} {'lost' if headline.higher_is_better else 'added'}"


def noise_by_image(inputs: ReportInputs, cell: str) -> np.ndarray:
    """Return the rms difference of a cell to its float network by test image, metres [N]."""
    predicted, reference = (np.load(files[cell]) for files in (inputs.predictions, inputs.references))
    return np.asarray(np.sqrt(np.square(predicted - reference, dtype=np.float64).mean((1, 2, 3))) * MAX_DEPTH_M)


def noise_parts_by_image(inputs: ReportInputs, row: Row) -> np.ndarray | None:
    """Return the mean squared difference to the float network by test image, in parts of its outputs' variance, [N].

    Its mean is the row's SQNR; None where one of them is not known.
    """
    sqnr_db, file = value(row, SQNR.column), inputs.images.get(row["cell"])
    noise = None if file is None else read_image_figures(file)["test"].figures.get(SQNR.by_image)
    if sqnr_db is None or noise is None:
        return None
    return np.asarray(noise / max(float(noise.mean()), 1e-30) * 10.0 ** (-sqnr_db / 10.0))


def loss_by_image(inputs: ReportInputs, cell: str) -> np.ndarray | None:
    """Return by how much the headline is worse than that of the cell's float network by test image, [N].

    NaN for an image without the figure; None where none is known.
    """
    if cell not in inputs.images or cell not in inputs.references:
        return None
    root = inputs.references[cell].with_name(PER_IMAGE)
    if not root.exists():
        return None
    headline = inputs.measures.headline
    tables = [read_image_figures(file)["test"].figures for file in (inputs.images[cell], root)]
    if any(headline.by_image not in table for table in tables):
        return None
    own, theirs = (table[headline.by_image] for table in tables)
    return np.asarray(headline.sign * (theirs - own))


def _noise(inputs: ReportInputs, cells: Sequence[str]) -> np.ndarray | None:
    found = [noise_by_image(inputs, cell) for cell in cells]
    return np.mean(np.square(found), axis=0) if found else None


def _loss(inputs: ReportInputs, cells: Sequence[str]) -> np.ndarray | None:
    found = [loss for cell in cells if (loss := loss_by_image(inputs, cell)) is not None]
    return np.mean(found, axis=0) if found else None


def _kept(inputs: ReportInputs, cells: Sequence[str]) -> ShownImages | None:
    """The images in the samples of the cells."""
    if not cells:
        return None
    samples = {cell: dict(np.load(inputs.samples[cell])) for cell in cells}
    first = samples[cells[0]]
    beside = {cell: inputs.references[cell].with_name(SAMPLES) for cell in cells if cell in inputs.references}
    return ShownImages(
        (EVENLY,) * len(first["image"]),
        first["image"],
        first["truth"],
        {cell: arrays["prediction"] for cell, arrays in samples.items()},
        {cell: np.load(file)["prediction"] for cell, file in beside.items() if file.exists()},
    )
