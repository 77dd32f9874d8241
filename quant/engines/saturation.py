"""Where PyTorch's x86 kernels add products in 16 bits, which saturate, and how convolutions are kept from it.

Without VNNI (``vpdpbusd``) an int8 kernel multiplies by ``vpmaddubsw``: it adds two products of up to 255 * 127 and
keeps 16 bits of the sum, at most 32767. FBGEMM's kernels for depthwise and grouped convolutions do so on every
processor, and PyTorch's engine ``x86`` picks them for more than 100 groups; per-channel weights, each of which reaches
127 somewhere, suffer most. oneDNN has depthwise kernels of 32 bits, with or without VNNI, so that grouped convolutions
are packed for it here. Without VNNI the other convolutions of ``x86`` and ``onednn`` saturate all the same: PyTorch's
own configurations for them (``reduce_range``) give activations 7 bits. What a processor does is tried, not looked up.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.ao.nn.intrinsic.quantized import ConvReLU2d
from torch.ao.nn.quantized import Conv2d

_EXACT = "onednn"
_LARGEST = (255, 127)
"""Activation and weight."""


class OneDnnConv2d(Conv2d):
    """A quantized convolution that is packed for oneDNN, whatever the process's engine is."""

    def set_weight_bias(self, w: Tensor, b: Tensor | None) -> None:
        """Pack weight and bias; also after loading and copying."""
        with _engine(_EXACT):
            super().set_weight_bias(w, b)


class OneDnnConvReLU2d(ConvReLU2d):
    """The same with a ReLU behind it."""

    def set_weight_bias(self, w: Tensor, b: Tensor | None) -> None:
        """Pack weight and bias; also after loading and copying."""
        with _engine(_EXACT):
            super().set_weight_bias(w, b)


def conv_kind(engine: str, groups: int, relu: bool) -> type[Conv2d]:
    """The class of a quantized convolution whose sums do not saturate on ``engine``, where there is one."""
    if engine == "x86" and groups > 1:
        return OneDnnConvReLU2d if relu else OneDnnConv2d
    return ConvReLU2d if relu else Conv2d


@functools.cache
def saturates(engine: str) -> bool:
    """Whether this processor's kernels of ``engine`` saturate: two convolutions of the largest values are computed."""
    with _engine(engine):
        return any(_saturates(engine, *shape) for shape in ((64, 1, 1), (128, 128, 3)))


def _saturates(engine: str, channels: int, groups: int, kernel: int) -> bool:
    activation, weight = _LARGEST
    products = channels // groups * kernel**2
    conv = conv_kind(engine, groups, relu=False)(
        channels, channels, kernel, padding=kernel // 2, groups=groups, bias=False
    )
    integers = torch.full((channels, channels // groups, kernel, kernel), weight, dtype=torch.int8)
    scales, zeros = torch.ones(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.long)
    conv.set_weight_bias(torch._make_per_channel_quantized_tensor(integers, scales, zeros, 0), None)
    conv.scale, conv.zero_point = float(products * weight), 0  # the exact sum comes out as it went in
    values = torch.full((1, channels, kernel, kernel), activation, dtype=torch.uint8)
    found = conv(torch._make_per_tensor_quantized_tensor(values, 1.0, 0)).int_repr()
    return bool((found[..., kernel // 2, kernel // 2] != activation).any())


@contextmanager
def _engine(engine: str) -> Iterator[None]:
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = engine
    try:
        yield
    finally:
        torch.backends.quantized.engine = before
