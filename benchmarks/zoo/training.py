"""A short training on rooms, after which noise no longer grows from layer to layer as it does with random weights."""

import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BATCH = 16
_GRID = 5
"""A network that gives one vector learns the depth of the room in 5 x 5 fields."""
_RATE = 1e-3


def train(network: nn.Module, images: Tensor, depth: Tensor, seconds: float) -> tuple[int, float]:
    """Let ``network`` (N x 3 x S x S to N x C x ... ) learn depth (N x 1 x H x W, 0 to 1) for so long, in place.

    Returns the steps and the last squared error in parts of the variance of the depth. The network is left in eval
    mode.
    """
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), _RATE)
    started, steps, recent = time.monotonic(), 0, 1.0
    for chosen in _batches(len(images)):
        spent = (time.monotonic() - started) / seconds
        if spent >= 1.0:
            break
        optimizer.param_groups[0]["lr"] = _RATE * min(1.0, 2.0 * (1.0 - spent))
        given = network(images[chosen])
        exact = target(given, depth[chosen])
        error = F.mse_loss(predicted(given, exact), exact)
        optimizer.zero_grad()
        error.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        steps, recent = steps + 1, 0.9 * recent + 0.1 * float(error.detach() / exact.var())
    network.eval()
    return steps, recent


def target(given: Tensor, depth: Tensor) -> Tensor:
    """What a network with such outputs is to give, centred."""
    sizes = given.shape[2:] if given.dim() == 4 else (_GRID, _GRID)
    return (F.adaptive_avg_pool2d(depth, sizes) - depth.mean()) * 4.0


def predicted(given: Tensor, exact: Tensor) -> Tensor:
    """The outputs that learn it: the first channel of a map, or the first values of a vector."""
    return given[:, :1] if given.dim() == 4 else given[:, : _GRID**2].reshape(exact.shape)


def _batches(count: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    while True:
        yield from torch.randperm(count, generator=generator).split(_BATCH)[: count // _BATCH]
