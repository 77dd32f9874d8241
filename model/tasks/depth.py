"""Monocular depth: from an image a map of a quarter of its size, as a fraction of 10 m."""

from collections.abc import Callable

import torch
from torch import Tensor

from model.data.augment import augment
from model.images import MAX_DEPTH_M
from model.tasks.facts import DEPTH_FACTS
from model.tasks.task import ImageMetric, Task, image_figures, metric_means

_MIN_FRACTION = 1e-3


def ssim(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean structural similarity of Nx1xHxW maps with data range 1 (Wang et al. 2004; torchmetrics)."""
    # Imported here: it takes as long as torch, and most processes compute no SSIM.
    from torchmetrics.functional.image import structural_similarity_index_measure

    value = structural_similarity_index_measure(prediction, target, data_range=1.0)
    assert isinstance(value, Tensor)
    return value


def image_ssim(prediction: Tensor, target: Tensor) -> Tensor:
    """``ssim`` of each image, [N]."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    value = structural_similarity_index_measure(prediction, target, data_range=1.0, reduction="none")
    assert isinstance(value, Tensor)
    return value.reshape(len(prediction))


def image_mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each map, unclipped, as in the study; [N]."""
    return ((prediction.double() - target.double()) ** 2).mean((1, 2, 3))


def abs_rel(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean error in parts of the true depth (Eigen et al. 2014, arXiv:1406.2283), [N]."""
    return _over_known(prediction, target, lambda found, truth: (found - truth).abs() / truth)


def rmse_m(prediction: Tensor, target: Tensor) -> Tensor:
    """Root mean squared error in metres (Eigen et al. 2014), [N]."""
    return _over_known(prediction, target, lambda found, truth: (found - truth) ** 2).sqrt() * MAX_DEPTH_M


def delta1(prediction: Tensor, target: Tensor) -> Tensor:
    """Share of pixels within a factor of 1.25 of the truth (Eigen et al. 2014), [N]."""

    def close(found: Tensor, truth: Tensor) -> Tensor:
        return (torch.maximum(found / truth, truth / found) < 1.25).double()

    return _over_known(prediction, target, close)


def _over_known(prediction: Tensor, target: Tensor, figure: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Means over the pixels of each image whose true depth is known (> 0), with predictions clipped to (0, 10] m.

    NaN for an image without any.
    """
    known = target > 0
    truth = target.double().masked_fill(~known, 1.0)
    figures = figure(prediction.clamp(_MIN_FRACTION, 1.0).double(), truth)
    return (figures * known).sum((1, 2, 3)) / known.sum((1, 2, 3))


def depth_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """L1 plus half of (1 - SSIM), the mix of DenseDepth (Alhashim and Wonka 2018, arXiv:1812.11941)."""
    return torch.nn.functional.l1_loss(prediction, target) + 0.5 * (1.0 - ssim(prediction, target))


_FIGURES = {"ssim": image_ssim, "mse": image_mse, "abs_rel": abs_rel, "rmse_m": rmse_m, "delta1": delta1}

DEPTH = Task(
    name="depth",
    identity="",
    loss=depth_loss,
    metrics={
        told.name: ImageMetric(
            _FIGURES[told.name], told.higher_is_better, told.title, told.margin, told.margin_is_relative
        )
        for told in DEPTH_FACTS.metrics
    },
    augment=augment,
    distillation=depth_loss,
)


def image_metrics(prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
    """All metrics of each image of Nx1xHxW depth fractions, float64 [N] by name."""
    return image_figures(DEPTH, prediction, target)


def depth_metrics(prediction: Tensor, target: Tensor) -> dict[str, float]:
    """The ``image_metrics`` of Nx1xHxW depth fractions, each as its mean over the images that have it.

    That of rmse_m is a mean of roots, which weighs a bad image less than the root over the pixels of all images does.
    """
    return metric_means(DEPTH, prediction, target)
