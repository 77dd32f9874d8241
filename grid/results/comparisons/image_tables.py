"""The figures by image of all cells of a run, read once and resampled where they are asked for."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from grid.results.comparisons.resampling import Resampled, Sample, sample_of
from grid.storage.per_image import read_image_figures

TEST, VALIDATION = "test", "val"


class ImageTables:
    """``files`` maps a cell to its ``per_image.csv``; nothing is read before it is asked for.

    ``samples`` by split are taken as they are, instead of files.
    """

    def __init__(self, files: Mapping[str, Path] | None = None, samples: Mapping[str, Sample] | None = None) -> None:
        self.files, self.given = dict(files or {}), samples
        self._last: tuple[tuple[str, str], Resampled] | None = None

    def sample(self, split: str) -> Sample:
        """The figures of one split; raises InputError, naming a file that cannot be read."""
        return self._samples[split]

    def resampled(self, measure: str, split: str) -> Resampled:
        """The means of all cells in a measure, and how they move with other scenes.

        Only the last answer is kept: of thousands of cells one is 32 MB, and to draw again takes tenths of a second.
        """
        if self._last is None or self._last[0] != (measure, split):
            self._last = (measure, split), self._samples[split].resampled(measure)
        return self._last[1]

    @cached_property
    def _samples(self) -> dict[str, Sample]:
        if self.given is not None:
            return {split: self.given.get(split, Sample()) for split in (TEST, VALIDATION)}
        tables = {cell: read_image_figures(path) for cell, path in self.files.items()}
        return {
            split: sample_of({cell: found[split] for cell, found in tables.items() if split in found})
            for split in (TEST, VALIDATION)
        }
