"""The best weights off the grid, as a start for training: near the integers that were chosen, but not pinned to them.

Rounding leaves every weight at the centre of its cell, half a step from the next integer, however nearly it was rounded
the other way. From there a short training moves no integer.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, fx

from quant.graph import bn_factor
from quant.prepare import quant_convs

_FILE = "off_grid.safetensors"
_MOST = 0.4
"""Of a step, from the centre of a cell: at its border, half a step away, noise alone would change integers."""


def save_off_grid(folder: Path, off_grid: Mapping[str, Tensor]) -> None:
    """Write what ``round_weights_optq`` says about off the grid into ``folder``, in half precision."""
    tensors = {name: steps.clamp(-1.0, 1.0).half().cpu().contiguous() for name, steps in off_grid.items()}
    save_file(tensors, folder / _FILE)


def load_off_grid(folder: Path) -> dict[str, Tensor]:
    """The steps from each weight to the best one off the grid, at most 1, by convolution."""
    return {name: steps.float() for name, steps in load_file(folder / _FILE).items()}


@torch.no_grad()
def lean_(prepared: fx.GraphModule, off_grid: Mapping[str, Tensor]) -> None:
    """Move weights from the centres of their cells towards the best ones off the grid, not beyond their cells.

    Training then starts with the same integers, and those that were nearly rounded the other way are the first to
    change. Convolutions that are kept in float stay as they are.
    """
    for name, conv in quant_convs(prepared).items():
        if conv.weight_quantizer.mode == "off":
            continue
        weight = conv.conv.weight
        shift = off_grid[name].to(weight).clamp(-_MOST, _MOST) * conv.weight_quantizer.scale.reshape(-1, 1, 1, 1)
        factor = 1.0 if conv.bn is None else bn_factor(conv.bn).reshape(-1, 1, 1, 1)
        weight += shift / factor
