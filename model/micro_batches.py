"""Batches in parts where a device has no room for them whole: gradients add up to those of the whole batch.

The gradient is equal up to rounding where a picture's output does not depend on the others of its batch: with BatchNorm
frozen. While BatchNorm learns, its statistics are those of the parts, smaller and more of them; then the training is
that of smaller batches as far as BatchNorm goes. This is why the parts that were needed stand in the history.
"""

import math
from collections.abc import Iterator

from torch import Tensor

from model.tasks import nested
from model.tasks.nested import Nested

_LEAST = 2
"""Pictures in a part: BatchNorm needs two."""


class MicroBatches:
    """How many pictures go through the network at a time: all of a batch, until the device has no room for it."""

    def __init__(self) -> None:
        self.most: int | None = None
        self.largest = 0

    def parts(self, images: Tensor, target: Nested) -> Iterator[tuple[Tensor, Nested, float]]:
        """The parts of a batch, of nearly equal size, each with its share of the batch, 0 to 1."""
        count = len(images)
        pieces = 1 if self.most is None else min(math.ceil(count / self.most), max(count // _LEAST, 1))
        sections = zip(images.tensor_split(pieces), nested.split(target, pieces), strict=True)
        for part, truth in sections:
            self.largest = max(self.largest, len(part))
            yield part, truth, len(part) / count

    def halve(self) -> bool:
        """Take half as many at a time from now on; False where there are no fewer."""
        if self.largest < 2 * _LEAST:
            return False
        self.most, self.largest = self.largest // 2, 0
        return True
