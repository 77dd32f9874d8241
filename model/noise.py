"""The noise of quantization: how far two predictions of the same images are apart."""

import math

import torch
from torch import Tensor

from model.tasks.nested import Nested, leaves


def noise_mse(reference: Tensor, quantized: Tensor) -> Tensor:
    """Mean squared difference of each image of two predictions [N, ...], float64 [N]."""
    return ((quantized.double() - reference.double()) ** 2).flatten(1).mean(1)


def nested_noise(reference: Nested, quantized: Nested) -> tuple[Tensor, float]:
    """The noise of each image over all outputs, float64 [N], and the variance that it is in units of.

    Of a lone tensor its ``noise_mse`` and the variance of the reference. Of several outputs the mean of each one's
    noise in parts of its own variance, so that none counts for more because its numbers are larger, and 1.
    """
    noises = {name: noise_mse(one, leaves(quantized)[name]) for name, one in leaves(reference).items()}
    if len(noises) == 1:
        return next(iter(noises.values())), signal(reference)
    parts = [noise / max(_variance(leaves(reference)[name]), 1e-30) for name, noise in noises.items()]
    return torch.stack(parts).mean(0), signal(reference)


def signal(reference: Nested) -> float:
    """What ``nested_noise`` is in units of: the variance of a lone tensor, 1 for several outputs."""
    outputs = list(leaves(reference).values())
    return _variance(outputs[0]) if len(outputs) == 1 else 1.0


def _variance(output: Tensor) -> float:
    return float(output.double().var(correction=0))


def comparable(reference: Nested, value: Nested) -> tuple[Tensor, Tensor]:
    """Two predictions of the same images as one tensor each, in which every one of several outputs counts the same.

    A lone tensor stays as it is. Several are flattened, [N, elements], in units in which the squares of each one's
    deviations from its mean add up to as much in the reference.
    """
    names = list(leaves(reference))
    if len(names) == 1:
        return leaves(reference)[names[0]], leaves(value)[names[0]]
    units = {name: output_unit(tensor) for name, tensor in leaves(reference).items()}
    first, second = (
        torch.cat([one.flatten(1).double() * units[name] for name, one in leaves(nested).items()], 1)
        for nested in (reference, value)
    )
    return first, second


def output_unit(output: Tensor) -> float:
    """What one of several outputs is multiplied by, so that each counts the same: by its deviation and its size."""
    deviation = float(output.double().std(correction=0))
    return 1.0 / (max(deviation, 1e-15) * math.sqrt(output[0].numel()))


def sqnr_db(reference: Tensor, quantized: Tensor) -> float:
    """Signal to quantization noise ratio 10 log10(var(reference) / mean((quantized - reference)^2)), in dB."""
    noise = torch.mean((quantized.double() - reference.double()) ** 2)
    return float(10.0 * torch.log10(reference.double().var(correction=0) / noise.clamp_min(1e-30)))
