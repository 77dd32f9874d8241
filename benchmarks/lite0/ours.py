"""The default recipe of the grid for the classifier, step by step as its stages run it."""

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, fx, nn
from torch.ao.nn.quantized import Conv2d

from quant.bias_correction import correct_bias
from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.engines.exported import ExportedNetwork, export
from quant.equalization.equalize import equalize
from quant.outliers import typical_images
from quant.prepare import quant_convs, quantizers
from quant.recipe import BiasCorrectionSpec, CalibrateSpec, EqualizeSpec, RoundingSpec
from quant.tracing.trace import fuse_bn
from quant.weight_rounding.rounding import round_weights_optq

Network = Callable[[Tensor], Tensor]


def calibrated(network: nn.Module, images: Tensor) -> tuple[fx.GraphModule, Tensor]:
    """Fused, equalized, calibrated; beside it the images without those whose activations are extreme."""
    folded = fuse_bn(network, images[:1])
    images = images[typical_images(folded, images, CalibrateSpec().outlier_ratio)]
    equalized = equalize(folded, EqualizeSpec(), images, "per_channel")
    return calibrate(equalized, "per_channel", CalibrateSpec(), images), images


def rounded(prepared: fx.GraphModule, images: Tensor) -> fx.GraphModule:
    """With weights rounded towards the float network's outputs, as is the default."""
    return round_weights_optq(prepared, RoundingSpec(), images, seed=0)[0]


def corrected(prepared: fx.GraphModule, images: Tensor) -> fx.GraphModule:
    """With the nearest weights and corrected biases, as ``rounding=false bias_correction=true`` has it."""
    return correct_bias(prepared, BiasCorrectionSpec(), images)


def float_weights(prepared: fx.GraphModule) -> fx.GraphModule:
    """A copy that rounds activations alone, with the float weights."""
    network = copy.deepcopy(prepared)
    for quantizer in quantizers(network).values():
        if quantizer.weight:
            quantizer.set_mode("off")
    return network


def on_qnnpack(prepared: fx.GraphModule) -> tuple[Network, int]:
    """The int8 network, and how many of its layers have int8 kernels."""
    network = qnnpack.convert(prepared)
    return network, sum(isinstance(module, Conv2d) for module in network.modules())


def exported(prepared: fx.GraphModule, engine: str, size: int, path: Path) -> tuple[Network, int]:
    """The file of ``engine`` at ``path`` as it runs; ``export`` fails where it lacks the weights of a layer."""
    export(prepared, engine, torch.zeros(1, 3, size, size), path)
    return ExportedNetwork(engine, path), len(quant_convs(prepared))


@torch.inference_mode()
def logits(network: Network, images: Tensor) -> Tensor:
    """One image after the other, as on a device."""
    return torch.cat([network(image) for image in images.split(1)])
