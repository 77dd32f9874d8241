"""The output noise that a network's quantized tensors cause, as a function of channel scales, and where it is least.

A quantized tensor rounds with a step in proportion to its range, and each of its elements passes the error on by its
squared derivative (``sensitivity``). Scaling channel c by ``exp(theta_c)`` scales its range up and its
derivatives down, so that the predicted noise is a sum of products of maxima and sums of exponentials of theta: a
geometric programme (Boyd et al. 2007, doi:10.1007/s11081-007-9001-7), convex in theta. Its minimum does not depend on
how the channels of the network happened to be scaled before.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_SHARPNESS = (8.0, 32.0, 128.0)
"""Of the smooth maximum that stands for a range, one solve after the other."""
_ITERATIONS = 40
FIXED = -1
_DEAD = 1e-9
"""No larger than what a BatchNorm factor of zero leaves of a weight (``quant.graph.bn_factor``)."""


@dataclass(frozen=True)
class QuantizedTensor:
    """One tensor with one step of rounding; or, for weights ``per_row``, one step a row.

    Elements are given as matrices (rows, columns): the sizes on both sides of zero (``low`` None: the range is
    symmetric), the sums of squared derivatives, and the classes whose scale multiplies (``up``) or divides
    (``down``) an element; FIXED stands for no class.
    """

    low: Tensor | None
    high: Tensor
    squared: Tensor
    up: Tensor
    down: Tensor
    levels: int
    per_row: bool


class NoiseModel:
    """Predicted squared error of the output as a function of the log scales theta (count,)."""

    def __init__(self, tensors: list[QuantizedTensor], count: int) -> None:
        self.count = count
        sides: list[tuple[Tensor, ...]] = []
        gains: list[tuple[Tensor, ...]] = []
        constants: list[Tensor] = []
        groups = sides_total = 0
        side_groups: list[Tensor] = []
        for item in tensors:
            rows, columns = item.high.shape
            own = (
                torch.arange(rows)[:, None].expand(rows, columns) if item.per_row else torch.zeros(rows, columns).long()
            )
            number = rows if item.per_row else 1
            up, down = (index.expand(rows, columns) % (count + 1) for index in (item.up, item.down))
            for size in (item.high, item.low):
                if size is not None:
                    used = size > _DEAD
                    sides.append(tuple(part[used] for part in (own + sides_total, up, down, size.double().log())))
                    side_groups.append(torch.arange(number) + groups)
                    sides_total += number
            used = item.squared > 0
            gains.append(tuple(part[used] for part in (own + groups, up, down, item.squared.double().log())))
            constants.append(torch.full((number,), -2.0 * math.log(item.levels) - math.log(12.0), dtype=torch.float64))
            groups += number
        self.sides, self.gains = (tuple(map(torch.cat, zip(*parts, strict=True))) for parts in (sides, gains))
        self.side_groups, self.constants = torch.cat(side_groups), torch.cat(constants)
        self.tied = torch.cat([torch.full((n,), i) for i, n in enumerate(len(part) for part in constants)])
        self.scalable = self._scalable()

    def _scalable(self) -> Tensor:
        """Classes with a size and a sensitivity (count,); the scale of a class that lacks one would be unbounded."""
        sized, sensitive = torch.zeros(2, self.count + 1, dtype=torch.bool)
        sized[self.sides[1]] = True
        sensitive[self.gains[1]] = True
        both: Tensor = sized & sensitive
        return both[:-1]

    def log_noise(self, theta: Tensor, sharpness: float = 1e4) -> Tensor:
        """Logarithm of the predicted noise of every group of elements with one step (groups,)."""
        theta = torch.cat([theta, theta.new_zeros(1)])
        side, up, down, log_size = self.sides
        sizes = _segment_logsumexp(sharpness * (log_size + theta[up] - theta[down]), side, len(self.side_groups))
        ranges = _segment_logsumexp(sizes / sharpness, self.side_groups, len(self.constants))
        group, up, down, log_gain = self.gains
        gains = _segment_logsumexp(log_gain - 2.0 * (theta[up] - theta[down]), group, len(self.constants))
        return self.constants + 2.0 * ranges + gains

    def noise(self, theta: Tensor) -> Tensor:
        """Predicted squared output error, summed over images and outputs, of each tensor (tensors,)."""
        total = torch.zeros(int(self.tied.max()) + 1, dtype=torch.float64)
        noise: Tensor = self.log_noise(theta).exp()
        return total.index_add(0, self.tied, noise)

    def solve(self) -> Tensor:
        """The log scales of least noise (count,), zero where a class has no size or no effect."""
        theta = torch.zeros(self.count, dtype=torch.float64, requires_grad=True)
        for sharpness in _SHARPNESS:
            optimizer = torch.optim.LBFGS([theta], max_iter=_ITERATIONS, history_size=20, line_search_fn="strong_wolfe")

            def closure(sharpness: float = sharpness, optimizer: torch.optim.Optimizer = optimizer) -> float:
                optimizer.zero_grad()
                loss = torch.logsumexp(self.log_noise(theta * self.scalable, sharpness), 0)
                loss.backward()
                return float(loss.detach())

            with torch.enable_grad():
                optimizer.step(closure)
        return (theta * self.scalable).detach()


def _segment_logsumexp(values: Tensor, segment: Tensor, count: int) -> Tensor:
    """Log-sum-exp of the values of each segment (count,); -inf for an empty one."""
    largest = torch.full((count,), -math.inf, dtype=values.dtype)
    largest = largest.scatter_reduce(0, segment, values.detach(), "amax").clamp_min(-1e300)
    sums = torch.zeros(count, dtype=values.dtype).index_add(0, segment, (values - largest[segment]).exp())
    return largest + sums.log()
