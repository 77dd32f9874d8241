"""Slices of images on a device, the next one read while the last one is worked on."""

from collections.abc import Callable, Generator
from contextlib import closing

import torch
from torch import Tensor

from model.data.threads import in_order


def slices_ahead(images: Callable[[slice], Tensor], count: int, size: int, device: torch.device) -> Generator[Tensor]:
    """``count`` images on the device, ``size`` at a time; close it where it is left early. Raises what reading does."""

    def read(start: int) -> Tensor:
        part = images(slice(start, min(start + size, count)))
        return part.pin_memory() if device.type == "cuda" and part.device.type == "cpu" else part

    def take(part: Tensor) -> Tensor:
        return part.to(device, non_blocking=True)

    with closing(in_order(read, range(0, count, size), take, readers=1, ahead=2)) as parts:
        yield from parts
