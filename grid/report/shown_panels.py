"""The test images that are shown of a task other than depth: its own pictures, which evaluations keep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from grid.report.inputs import ReportInputs
from grid.results.ranking import Row
from grid.storage.per_image import read_image_figures
from grid.storage.samples import Panels, Samples, load_samples


@dataclass(frozen=True)
class Sheet:
    """Test images by their ``heads`` [K]; ``truth`` and, by cell, ``found`` are pictures of them by their titles.

    ``figures`` are those of the headline by cell, [K]; NaN where an image has none.
    """

    heads: tuple[str, ...]
    truth: Panels
    found: Mapping[str, Panels]
    figures: Mapping[str, np.ndarray]


def sheets(inputs: ReportInputs, rows: Sequence[Row]) -> list[Sheet]:
    """Return the pictures of ``rows``: a sheet for each set of images, as each float network chooses its own."""
    found: dict[tuple[int, ...], dict[str, Samples]] = {}
    for cell, samples in _samples(inputs, rows).items():
        if samples.truth and samples.found:
            found.setdefault(samples.places, {})[cell] = samples
    return [_sheet(inputs, cells) for cells in found.values()]


def problem(inputs: ReportInputs, rows: Sequence[Row]) -> str:
    """Return what the first of ``rows`` without pictures says about the task's code; nothing where all is well."""
    return next((samples.problem for samples in _samples(inputs, rows).values() if samples.problem), "")


def _samples(inputs: ReportInputs, rows: Sequence[Row]) -> dict[str, Samples]:
    return {row["cell"]: load_samples(inputs.samples[row["cell"]]) for row in rows if row["cell"] in inputs.samples}


def _sheet(inputs: ReportInputs, cells: Mapping[str, Samples]) -> Sheet:
    first = next(iter(cells.values()))
    heads = tuple(f"image {place}: {why}" for place, why in zip(first.places, first.reasons, strict=True))
    key, places, figures = inputs.measures.headline.by_image, list(first.places), {}
    for cell in cells:
        if cell in inputs.images:
            known = read_image_figures(inputs.images[cell])["test"].figures
            if key in known:
                figures[cell] = known[key][places]
    return Sheet(heads, first.truth, {cell: samples.found for cell, samples in cells.items()}, figures)
