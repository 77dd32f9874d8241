"""Depth metrics and the training loss, on fractions of 10 m."""

import torch
from torch import Tensor

from model.images import MAX_DEPTH_M

_MIN_FRACTION = 1e-3


def ssim(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean structural similarity of Nx1xHxW maps with data range 1 (Wang et al. 2004; torchmetrics)."""
    # Imported here: it takes as long as torch, and most processes compute no SSIM.
    from torchmetrics.functional.image import structural_similarity_index_measure

    value = structural_similarity_index_measure(prediction, target, data_range=1.0)
    assert isinstance(value, Tensor)
    return value


def _image_ssim(prediction: Tensor, target: Tensor) -> Tensor:
    """``ssim`` of each image, [N]."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    value = structural_similarity_index_measure(prediction, target, data_range=1.0, reduction="none")
    assert isinstance(value, Tensor)
    return value.reshape(len(prediction))


def depth_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """L1 plus half of (1 - SSIM), the mix of DenseDepth (Alhashim and Wonka 2018, arXiv:1812.11941)."""
    return torch.nn.functional.l1_loss(prediction, target) + 0.5 * (1.0 - ssim(prediction, target))


def image_metrics(prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Metrics of each image of Nx1xHxW depth fractions, float64 [N] by name.

    mse and ssim are those of the study (fractions of 10 m, unclipped); abs_rel, rmse_m (metres) and delta1 are
    those of Eigen et al. 2014 (arXiv:1406.2283), over the pixels of an image whose true depth is known (> 0), with
    predictions clipped to (0, 10] m; NaN for an image without any. Raises FloatingPointError where a predicted depth
    is not finite.
    """
    prediction, target = prediction.float(), target.float()
    if not torch.isfinite(prediction).all():
        raise FloatingPointError(f"{int((~torch.isfinite(prediction)).sum())} predicted depths are not finite")
    known = target > 0
    clipped = prediction.clamp(_MIN_FRACTION, 1.0).double()
    truth = target.double().masked_fill(~known, 1.0)

    def over_known(figures: Tensor) -> Tensor:
        return (figures * known).sum((1, 2, 3)) / known.sum((1, 2, 3))

    return {
        "mse": ((prediction.double() - target.double()) ** 2).mean((1, 2, 3)),
        "ssim": _image_ssim(prediction, target).double(),
        "abs_rel": over_known((clipped - truth).abs() / truth),
        "rmse_m": over_known((clipped - truth) ** 2).sqrt() * MAX_DEPTH_M,
        "delta1": over_known((torch.maximum(clipped / truth, truth / clipped) < 1.25).double()),
    }


def depth_metrics(prediction: Tensor, target: Tensor) -> dict[str, float]:
    """The ``image_metrics`` of Nx1xHxW depth fractions, each as its mean over the images that have it.

    That of rmse_m is a mean of roots, which weighs a bad image less than the root over the pixels of all images does.
    """
    return {name: float(figures.nanmean()) for name, figures in image_metrics(prediction, target).items()}


def noise_mse(reference: Tensor, quantized: Tensor) -> Tensor:
    """Mean squared difference of each image of two predictions Nx1xHxW, float64 [N]."""
    return ((quantized.double() - reference.double()) ** 2).mean((1, 2, 3))


def sqnr_db(reference: Tensor, quantized: Tensor) -> float:
    """Signal to quantization noise ratio 10 log10(var(reference) / mean((quantized - reference)^2)), in dB."""
    noise = torch.mean((quantized.double() - reference.double()) ** 2)
    return float(10.0 * torch.log10(reference.double().var(correction=0) / noise.clamp_min(1e-30)))
