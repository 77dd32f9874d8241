"""What networks give and what they are compared with: a tensor, or tensors in a tuple, list or dict.

The first dimension of every tensor is the images.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Nested = Any
"""A tensor, or a tuple, list or dict of tensors."""


def leaves(nested: Nested) -> dict[str, Tensor]:
    """The tensors by name: that of a dict's key, the place in a tuple, and "" for a lone tensor."""
    if isinstance(nested, Mapping):
        return {str(key): value for key, value in nested.items()}
    if isinstance(nested, tuple | list):
        return {str(place): value for place, value in enumerate(nested)}
    return {"": nested}


def named(nested: Nested) -> dict[str, Tensor]:
    """The ``leaves`` by the names that they have outside: those of a tuple are output_0, output_1 and so on."""
    if isinstance(nested, tuple | list):
        return {f"output_{place}": value for place, value in leaves(nested).items()}
    return leaves(nested)


def each(function: Callable[..., Any], *nested: Nested) -> Nested:
    """The same structure with ``function`` of its tensors; of several structures, of those at the same place."""
    first = nested[0]
    if isinstance(first, Mapping):
        return {key: function(*(one[key] for one in nested)) for key in first}
    if isinstance(first, tuple | list):
        return tuple(function(*parts) for parts in zip(*nested, strict=True))
    return function(*nested)


def joined(parts: Sequence[Nested]) -> Nested:
    """The images of several structures one after the other."""
    return each(lambda *tensors: torch.cat(tensors), *parts)


def count(nested: Nested) -> int:
    """How many images there are."""
    return len(next(iter(leaves(nested).values())))


def split(nested: Nested, pieces: int) -> Iterator[Nested]:
    """The images in so many pieces of nearly equal size."""
    sections = {name: tensor.tensor_split(pieces) for name, tensor in leaves(nested).items()}
    for number in range(pieces):
        parts = iter([pieces[number] for pieces in sections.values()])
        yield each(lambda _, parts=parts: next(parts), nested)
