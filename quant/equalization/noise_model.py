"""The output noise that a network's quantized tensors cause, as a function of channel scales, and where it is least.

A quantized tensor rounds with a step in proportion to its range, and each of its elements passes the error on by its
squared derivative (``sensitivity``). Scaling channel c by ``exp(theta_c)`` scales its range up and its
derivatives down, so that the predicted noise is a sum of products of maxima and sums of exponentials of theta: a
geometric programme (Boyd et al. 2007, doi:10.1007/s11081-007-9001-7), convex in theta. Its minimum does not depend on
how the channels of the network happened to be scaled before.
"""

import math
from collections.abc import Callable
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

    Elements are given as (groups, rows, columns): the sizes on both sides of zero (``low`` None: the range is
    symmetric), and the sums of squared derivatives. The classes of rows (groups, rows) multiply (``up``), those of
    columns (groups, columns) divide (``down``); FIXED stands for no class.
    """

    low: Tensor | None
    high: Tensor
    squared: Tensor
    up: Tensor
    down: Tensor
    levels: int
    per_row: bool


class _Matrices:
    """Elements (groups, rows, columns), of which sums over scaled columns are taken: a product with a vector each time.

    So an evaluation costs no exponential for each element, and no memory beyond two numbers for each.
    """

    def __init__(self, elements: Tensor, down: Tensor, floor: float) -> None:
        self.elements = torch.where(elements > floor, elements, 0.0)
        self.down = down
        self.live = (elements > floor).any(-1).flatten()

    def log_sums(self, around: Tensor, power: float, slope: float) -> Callable[[Tensor], Tensor]:
        """The function from theta to ``log sum_c (element_c ** power * exp(slope * theta_c))`` of each live row.

        It holds near ``around``: of elements whose share there is below 1e-308 it knows nothing.
        """
        origin = around[self.down]
        exponents = self.elements.to(torch.float64, copy=True).log_().mul_(power).add_(slope * origin[:, None])
        most = exponents.amax(-1, keepdim=True).clamp_min(-1e300)
        kernel = exponents.sub_(most).exp_()

        def log_sums(theta: Tensor) -> Tensor:
            moved = slope * (theta[self.down] - origin)
            largest = moved.detach().amax()
            sums = kernel @ (moved - largest).exp()[..., None]
            return (most + largest + sums.clamp_min(1e-300).log()).flatten()[self.live]

        return log_sums


class NoiseModel:
    """Predicted squared error of the output as a function of the log scales theta (count,)."""

    def __init__(self, tensors: list[QuantizedTensor], count: int) -> None:
        self.count = count
        self.sizes, self.gains = list[_Matrices](), list[_Matrices]()
        ups: dict[str, list[Tensor]] = {"size": [], "gain": []}
        sides, gain_groups, side_groups, constants, tied = ([] for _ in range(5))
        groups = sides_total = 0
        for number, item in enumerate(tensors):
            up, down = (index % (count + 1) for index in (item.up, item.down))
            up = up.flatten()
            own, steps = (torch.arange(len(up)), len(up)) if item.per_row else (torch.zeros_like(up), 1)
            for size in (item.high, item.low):
                if size is not None:
                    matrices = _Matrices(size, down, _DEAD)
                    self.sizes.append(matrices)
                    ups["size"].append(up[matrices.live])
                    sides.append(own[matrices.live] + sides_total)
                    side_groups.append(torch.arange(steps) + groups)
                    sides_total += steps
            matrices = _Matrices(item.squared, down, 0.0)
            self.gains.append(matrices)
            ups["gain"].append(up[matrices.live])
            gain_groups.append(own[matrices.live] + groups)
            constants.append(torch.full((steps,), -2.0 * math.log(item.levels) - math.log(12.0), dtype=torch.float64))
            tied.append(torch.full((steps,), number))
            groups += steps
        self.size_up, self.gain_up = (torch.cat(parts) for parts in ups.values())
        self.sides, self.side_groups, self.gain_groups, self.constants, self.tied = (
            torch.cat(parts) for parts in (sides, side_groups, gain_groups, constants, tied)
        )
        self.scalable = self._scalable()

    def _scalable(self) -> Tensor:
        """Classes with a size and a sensitivity (count,); the scale of a class that lacks one would be unbounded."""
        sized, sensitive = torch.zeros(2, self.count + 1, dtype=torch.bool)
        sized[self.size_up] = True
        sensitive[self.gain_up] = True
        both: Tensor = sized & sensitive
        return both[:-1]

    def log_noise(self, around: Tensor, sharpness: float = 1e4) -> Callable[[Tensor], Tensor]:
        """The function from theta to the logarithm of the predicted noise of every group with one step (groups,).

        It holds near ``around``; ``sharpness`` is that of the smooth maximum.
        """
        around = _with_fixed(around.detach())
        row_sizes = [item.log_sums(around, sharpness, -sharpness) for item in self.sizes]
        row_gains = [item.log_sums(around, 1.0, 2.0) for item in self.gains]

        def log_noise(theta: Tensor) -> Tensor:
            theta = _with_fixed(theta)
            sizes = torch.cat([log_sums(theta) for log_sums in row_sizes]) + sharpness * theta[self.size_up]
            sizes = _segment_logsumexp(sizes, self.sides, len(self.side_groups))
            ranges = _segment_logsumexp(sizes / sharpness, self.side_groups, len(self.constants))
            gains = torch.cat([log_sums(theta) for log_sums in row_gains]) - 2.0 * theta[self.gain_up]
            return self.constants + 2.0 * ranges + _segment_logsumexp(gains, self.gain_groups, len(self.constants))

        return log_noise

    def noise(self, theta: Tensor) -> Tensor:
        """Predicted squared output error, summed over images and outputs, of each tensor (tensors,)."""
        total = torch.zeros(int(self.tied.max()) + 1, dtype=torch.float64)
        noise: Tensor = self.log_noise(theta)(theta).exp()
        return total.index_add(0, self.tied, noise)

    def solve(self, held: Tensor | None = None, start: Tensor | None = None, iterations: int = 0) -> Tensor:
        """The log scales of least noise (count,), zero where a class has no size or no effect, or is ``held`` (count,).

        From ``start`` (count,) instead of zeros where it is given; ``iterations``: only so many, with the
        sharpest maximum.
        """
        free = self.scalable if held is None else self.scalable & ~held
        theta = torch.zeros(self.count, dtype=torch.float64) if start is None else start.clone()
        theta.requires_grad_(True)
        for sharpness in _SHARPNESS[-1:] if iterations else _SHARPNESS:
            optimizer = torch.optim.LBFGS(
                [theta], max_iter=iterations or _ITERATIONS, history_size=20, line_search_fn="strong_wolfe"
            )
            log_noise = self.log_noise(theta * free, sharpness)

            def closure(
                log_noise: Callable[[Tensor], Tensor] = log_noise, optimizer: torch.optim.Optimizer = optimizer
            ) -> float:
                optimizer.zero_grad()
                loss = torch.logsumexp(log_noise(theta * free), 0)
                loss.backward()
                return float(loss.detach())

            with torch.enable_grad():
                optimizer.step(closure)
            del log_noise, closure  # and the matrices that they hold, before others are made
        return (theta * free).detach()


def _with_fixed(theta: Tensor) -> Tensor:
    """In double precision, with a last entry for FIXED."""
    return torch.cat([theta, theta.new_zeros(1)]).double()


def _segment_logsumexp(values: Tensor, segment: Tensor, count: int) -> Tensor:
    """Log-sum-exp of the values of each segment (count,); -inf for an empty one."""
    largest = torch.full((count,), -math.inf, dtype=values.dtype)
    largest = largest.scatter_reduce(0, segment, values.detach(), "amax").clamp_min(-1e300)
    sums = torch.zeros(count, dtype=values.dtype).index_add(0, segment, (values - largest[segment]).exp())
    return largest + sums.log()
