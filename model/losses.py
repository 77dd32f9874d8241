"""The losses of an epoch, read from their device every few steps: each reading waits until a GPU has caught up."""

import math

import torch
from torch import Tensor

_READ_EVERY = {"cpu": 1}
_ELSEWHERE = 16


class Losses:
    """The losses of an epoch of so many ``steps`` on a device, and their mean over the steps that were read."""

    def __init__(self, steps: int, device: torch.device) -> None:
        self.steps, self.every = steps, _READ_EVERY.get(device.type, _ELSEWHERE)
        self.waiting: list[Tensor] = []
        self.read, self.total = 0, 0.0

    def add(self, loss: Tensor) -> bool:
        """Take in the loss of the next step; whether it was read, with those before it.

        Raises FloatingPointError for the first step that was read and whose loss is not finite.
        """
        self.waiting.append(loss.detach())
        due = len(self.waiting) == self.every or self.read + len(self.waiting) == self.steps
        if due:
            for value in torch.stack(self.waiting).tolist():
                self.read += 1
                if not math.isfinite(value):
                    raise FloatingPointError(f"loss became {value} at step {self.read} of {self.steps}")
                self.total += value
            self.waiting = []
        return due

    @property
    def mean(self) -> float:
        """Of the steps that were read, 0 before the first."""
        return self.total / max(self.read, 1)
