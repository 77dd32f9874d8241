"""The int8 state dict in a file of bit-packed integers: a weight of 4 bits takes 4 bits.

PyTorch's own files hold a byte a weight, however few levels its integers use. Here they are packed without gaps, b bits
each, as the whole numbers from 0 to 2^b - 2 that they are above their least value; scales, biases and the scale and
zero point of every activation stand beside them. The file is a safetensors file: nothing in it can be executed.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from quant.recipe import MOST_BITS, WeightBits

_SCALES = ".scales"
_SCALARS = "scalars."
"""All tensors without a dimension, joined by type in the order of the state dict: each alone would cost its header."""


def is_narrow(weight_bits: WeightBits) -> bool:
    """Whether any layer's weights have fewer than 8 bits."""
    return any(bits < MOST_BITS for bits in weight_bits.values())


def pack(integers: Tensor, bits: int) -> Tensor:
    """Symmetric integers of ``bits`` as bytes without gaps (uint8, one dimension)."""
    levels = integers.flatten().numpy().astype(np.int16) + (2 ** (bits - 1) - 1)
    places = (levels[:, None] >> np.arange(bits)) & 1
    return torch.from_numpy(np.packbits(places.astype(np.uint8)))


def unpack(packed: Tensor, bits: int, shape: torch.Size) -> Tensor:
    """The integers (int8) of this shape that were packed; raises ValueError where there are more or fewer bytes."""
    count = shape.numel()
    if packed.dtype != torch.uint8 or packed.shape != (-(-count * bits // 8),):
        raise ValueError(f"{tuple(packed.shape)} bytes of type {packed.dtype} for {count} integers of {bits} bits")
    places = np.unpackbits(packed.numpy(), count=count * bits).reshape(count, bits).astype(np.int16)
    levels = (places << np.arange(bits)).sum(1) - (2 ** (bits - 1) - 1)
    return torch.from_numpy(levels.astype(np.int8)).reshape(shape)


def save_packed(state: Mapping[str, Tensor], weight_bits: WeightBits, path: Path) -> None:
    """Write the state dict of an int8 network of PyTorch whose convolutions have these widths."""
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, list[Tensor]] = {}
    for name, value in state.items():
        if value.is_quantized:
            tensors[name] = pack(value.int_repr(), _bits(name, weight_bits))
            tensors[name + _SCALES] = _scales(value)
        elif value.dim() == 0:
            scalars.setdefault(f"{_SCALARS}{value.dtype}", []).append(value)
        else:
            tensors[name] = value.detach().contiguous().clone()
    save_file(tensors | {kind: torch.stack(values) for kind, values in scalars.items()}, path)


def load_packed(path: Path, weight_bits: WeightBits, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict that was saved, for a network whose own one is ``like`` it but for its values.

    Raises KeyError or ValueError where the file is of another network.
    """
    tensors = load_file(path)
    scalars = {name: iter(value) for name, value in tensors.items() if name.startswith(_SCALARS)}
    state: dict[str, Tensor] = {}
    for name, old in like.items():
        if old.is_quantized:
            integers = unpack(tensors[name], _bits(name, weight_bits), old.shape)
            state[name] = _quantized(integers, tensors[name + _SCALES].double(), old)
        elif old.dim() == 0:
            value = next(scalars[f"{_SCALARS}{old.dtype}"], None)
            if value is None:
                raise ValueError(f"it has no {name}")
            state[name] = value
        else:
            state[name] = tensors[name]
    return state


def _bits(name: str, weight_bits: WeightBits) -> int:
    return weight_bits.get(name.removesuffix(".weight"), MOST_BITS)


def _scales(weight: Tensor) -> Tensor:
    """As float32, which the quantizers that they come from have."""
    if weight.qscheme() == torch.per_channel_affine:
        return weight.q_per_channel_scales().float()
    return torch.tensor([weight.q_scale()])


def _quantized(integers: Tensor, scales: Tensor, like: Tensor) -> Tensor:
    if like.qscheme() != torch.per_channel_affine:
        return torch._make_per_tensor_quantized_tensor(integers, float(scales), 0)
    if len(scales) != len(integers):
        raise ValueError(f"{len(scales)} scales for {len(integers)} channels")
    return torch._make_per_channel_quantized_tensor(integers, scales, torch.zeros(len(scales), dtype=torch.long), 0)
