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


def depth_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """L1 plus half of (1 - SSIM), the mix of DenseDepth (Alhashim and Wonka 2018, arXiv:1812.11941)."""
    return torch.nn.functional.l1_loss(prediction, target) + 0.5 * (1.0 - ssim(prediction, target))


def depth_metrics(prediction: Tensor, target: Tensor) -> dict[str, float]:
    """Test metrics of Nx1xHxW depth fractions, over the pixels of all images together.

    mse and ssim are those of the study (fractions of 10 m, unclipped); abs_rel, rmse_m (metres) and delta1 are
    those of Eigen et al. 2014 (arXiv:1406.2283), on pixels whose true depth is known (> 0) and predictions
    clipped to (0, 10] m. Raises FloatingPointError where a predicted depth is not finite.
    """
    prediction, target = prediction.float(), target.float()
    if not torch.isfinite(prediction).all():
        raise FloatingPointError(f"{int((~torch.isfinite(prediction)).sum())} predicted depths are not finite")
    valid = target > 0
    clipped = prediction.clamp(_MIN_FRACTION, 1.0)[valid]
    truth = target[valid]
    ratio = torch.maximum(clipped / truth, truth / clipped)
    return {
        "mse": float(torch.nn.functional.mse_loss(prediction, target)),
        "ssim": float(ssim(prediction, target)),
        "abs_rel": float(((clipped - truth).abs() / truth).mean()),
        "rmse_m": float(((clipped - truth) ** 2).mean().sqrt()) * MAX_DEPTH_M,
        "delta1": float((ratio < 1.25).float().mean()),
    }


def sqnr_db(reference: Tensor, quantized: Tensor) -> float:
    """Signal to quantization noise ratio 10 log10(var(reference) / mean((quantized - reference)^2)), in dB."""
    noise = torch.mean((quantized.double() - reference.double()) ** 2)
    return float(10.0 * torch.log10(reference.double().var(correction=0) / noise.clamp_min(1e-30)))
