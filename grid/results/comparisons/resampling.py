"""Means over images, drawn again by scene: how far the mean of each cell would move with other scenes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from grid.storage.per_image import ImageFigures

RESAMPLES = 2000
"""The standard error of a bootstrap with so many has a relative error of 1.6 % itself."""
SEED = 0
LEAST_NOISE = 1e-30
NOISE = "noise_mse"
_MOST_VALUES = 16


@dataclass(frozen=True)
class Resampled:
    """A measure of ``cells``: their means [C], and the deviations of the resampled ones from their own mean [C, B].

    ``one_image`` is by how much one independent image more could change a mean, where figures are counted; else 0.
    """

    means: np.ndarray
    deviations: np.ndarray
    one_image: float = 0.0


@dataclass(frozen=True)
class Sample:
    """Figures of many cells on the same images: ``figures`` by measure [C, N], ``scene`` [N] the place of its scene.

    Scenes are the clusters: pictures of one scene are no independent evidence. A mean over resampled scenes is a ratio
    of sums, as scenes differ in size (Cochran 1977, chapter 6; Field and Welsh 2007 on the cluster bootstrap).
    """

    cells: Mapping[str, int] = field(default_factory=dict)
    scene: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=int))
    figures: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def images(self) -> int:
        """How many images there are."""
        return len(self.scene)

    @property
    def scenes(self) -> int:
        """How many scenes there are."""
        return int(self.scene.max()) + 1 if len(self.scene) else 0

    @property
    def degrees_of_freedom(self) -> float:
        """Those of the standard error: scenes less one, and fewer where a few scenes hold most images; 0 of one scene.

        Where the scenes' sums have variances as n^2 (n images), their estimated variance has about
        (sum n^2)^2 / sum n^4 - 1 of them (Satterthwaite 1946).
        """
        if self.scenes < 2:
            return 0.0
        squares = np.bincount(self.scene).astype(np.float64) ** 2
        return max(float(squares.sum() ** 2 / (squares**2).sum()) - 1.0, 1.0)

    def resampled(self, measure: str) -> Resampled:
        """The means of all cells and how they move, NaN for cells without the measure; noise is in dB, negative.

        The deviations are scaled by sqrt(S / (S - 1)): a bootstrap of S scenes underestimates by as much.
        """
        if measure not in self.figures:
            return Resampled(np.full(len(self.cells), np.nan), np.full((len(self.cells), 1), np.nan))
        figures = self.figures[measure]
        has = ~np.isnan(figures).all(axis=1)
        known = ~np.isnan(figures[has]).any(axis=0)  # an image counts where all cells have its figure
        sums = np.zeros((len(figures), self.scenes))
        for cell, row in zip(np.flatnonzero(has), figures[has][:, known], strict=True):
            sums[cell] = np.bincount(self.scene[known], row, self.scenes)
        counts = np.bincount(self.scene[known], minlength=self.scenes).astype(np.float64)
        weights = _weights(self.scenes)
        with np.errstate(invalid="ignore", divide="ignore"):
            means, drawn = sums.sum(axis=1) / counts.sum(), (sums @ weights.T) / (weights @ counts)
        if measure == NOISE:
            means, drawn = (-10.0 * np.log10(np.maximum(found, LEAST_NOISE)) for found in (means, drawn))
        deviations = drawn - drawn.mean(axis=1, keepdims=True)
        deviations *= math.sqrt(self.scenes / max(self.scenes - 1, 1))
        uncounted = measure == NOISE or not known.any()
        one_image = 0.0 if uncounted else _one_image(figures[has][:, known], deviations[has], self.scenes)
        return Resampled(np.where(has, means, np.nan), np.where(has[:, None], deviations, np.nan), one_image)


def _one_image(figures: np.ndarray, deviations: np.ndarray, scenes: int) -> float:
    """By how much one independent image more could change the mean of counted figures [C, N]; 0 of measured ones.

    Counted figures, such as 0 or 1 for a right class, have few values, each on two images or more on average.
    Independent are as many images as explain the variance over scenes (Rao and Scott 1992), ``deviations`` [C, B].
    """
    cells, images = figures.shape
    values = 1 + (np.diff(np.sort(figures, axis=1), axis=1) > 0).sum(axis=1)
    if not cells or (values > min(_MOST_VALUES, images // 2)).any():
        return 0.0
    drawn = deviations.var(axis=1)
    ratios = figures.var(axis=1)[drawn > 0] / drawn[drawn > 0]
    independent = float(np.median(np.clip(ratios, scenes, images))) if len(ratios) else scenes
    return (float(figures.max() - figures.min()) or 1.0) / independent


def sample_of(tables: Mapping[str, ImageFigures]) -> Sample:
    """The sample of all cells whose images are those of the first; cells with other images have no figures in it."""
    if not tables:
        return Sample()
    first = next(iter(tables.values())).scene
    alike = {cell: table for cell, table in tables.items() if np.array_equal(table.scene, first)}
    measures = dict.fromkeys(name for table in alike.values() for name in table.figures)
    none = np.full(len(first), np.nan)
    figures = {name: np.stack([table.figures.get(name, none) for table in alike.values()]) for name in measures}
    return Sample({cell: place for place, cell in enumerate(alike)}, _places(first), figures)


def _places(scene: np.ndarray) -> np.ndarray:
    return np.unique(scene, return_inverse=True)[1].reshape(-1)


def _weights(scenes: int) -> np.ndarray:
    """How often each scene is drawn, [B, S]."""
    drawn = np.random.default_rng(SEED).multinomial(scenes, np.full(scenes, 1.0 / scenes), size=RESAMPLES)
    return drawn.astype(np.float64)


def variances(deviations: np.ndarray, cells: Sequence[int] | np.ndarray, others: np.ndarray) -> np.ndarray:
    """Variances of the differences of ``cells`` [M] to ``others`` [N], [M, N]."""
    scale = 1.0 / max(deviations.shape[1] - 1, 1)
    own = np.einsum("cb,cb->c", deviations, deviations) * scale
    shared = deviations[cells] @ deviations[others].T * scale
    return np.asarray(np.maximum(own[cells][:, None] + own[others][None] - 2.0 * shared, 0.0))
