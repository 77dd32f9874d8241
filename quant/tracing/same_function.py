"""Whether a graph computes what its network does."""

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from quant.graph import UnsupportedNetworkError

_COUNTS = (1, 3)
_TOLERANCE = 1e-3


@torch.no_grad()
def require_same_function(network: nn.Module, graph_module: fx.GraphModule, example: Tensor) -> None:
    """Compare both in eval mode on one and on three images of noise, of the example's size.

    Raises UnsupportedNetworkError where an output differs by more than a thousandth of the largest value, or has
    another shape. A network that answers the same image in different ways is not compared.
    """
    network, graph_module = copy.deepcopy(network).eval(), copy.deepcopy(graph_module).eval()
    generator = torch.Generator().manual_seed(0)
    for count in _COUNTS:
        images = torch.randn(count, *example.shape[1:], generator=generator).to(example)
        expected, given = tensors(network(images.clone())), tensors(graph_module(images.clone()))
        if [value.shape for value in expected] != [value.shape for value in given]:
            shapes = " and ".join(str([list(value.shape) for value in values]) for values in (given, expected))
            raise UnsupportedNetworkError(f"its graph and itself give {shapes} for {count} images")
        for index, (ours, theirs) in enumerate(zip(given, expected, strict=True)):
            difference = _difference(ours, theirs)
            if not difference <= _TOLERANCE and _repeats(network, images):
                raise UnsupportedNetworkError(
                    f"output {index} of its graph differs by {difference:.2g} of the largest value for {count} images"
                )


def tensors(output: Any) -> list[Tensor]:
    """All tensors of an output, in order; tuples, lists, dicts and dataclasses are looked into."""
    leaves = pytree.tree_leaves(output)
    found: list[Tensor] = []
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif hasattr(leaf, "__dict__"):
            found += tensors(list(vars(leaf).values()))
    return found


def _difference(ours: Tensor, theirs: Tensor) -> float:
    """Of the largest value; values that are not finite must be in the same places."""
    ours, theirs = ours.double(), theirs.double()
    finite = theirs.isfinite()
    if not torch.equal(finite, ours.isfinite()):
        return float("inf")
    ours, theirs = ours[finite], theirs[finite]
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-6)) if len(theirs) else 0.0


def _repeats(network: nn.Module, images: Tensor) -> bool:
    pairs = zip(tensors(network(images.clone())), tensors(network(images.clone())), strict=True)
    return all(_difference(one, other) <= _TOLERANCE for one, other in pairs)
