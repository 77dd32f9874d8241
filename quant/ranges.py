"""Range setting: which interval of real numbers the 8-bit integers stand for."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

_BINS = 4096
_LEVELS = 255
_COUNTED = 2**16
"""Of a larger batch a histogram counts about this many values, evenly spread: the error is a mean over all of them."""
_WIDE, _FINE = (torch.linspace(*ends, 12, dtype=torch.float64) for ends in ((0.05, 1.0), (0.95, 1.05)))
_SEARCHES = (_WIDE, _WIDE, _FINE)
"""Fractions of the ends that are tried, one search after the other."""
_EPS = 1e-9


class RangeObserver(Protocol):
    """Gathers statistics of one activation over the calibration batches."""

    def update(self, x: Tensor) -> None:
        """Take in one batch of values."""

    def limits(self) -> tuple[Tensor, Tensor]:
        """Low and high end of the range, each of shape (1,)."""


def affine_qparams(low: Tensor, high: Tensor, quant_max: int = _LEVELS) -> tuple[Tensor, Tensor]:
    """Scale and zero point of integers from 0 to ``quant_max`` over [low, high], widened to hold zero exactly."""
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    scale = ((high - low) / quant_max).clamp_min(_EPS)
    return scale, torch.round(-low / scale).clamp(0, quant_max).to(torch.int32)


def symmetric_qparams(low: Tensor, high: Tensor, quant_max: int) -> Tensor:
    """Scale of a symmetric quantizer that holds [low, high]; an all-zero channel gets a tiny scale."""
    return (torch.maximum(low.abs(), high.abs()) / quant_max).clamp_min(_EPS)


@dataclass(frozen=True)
class ElementwiseConsumer:
    """The elementwise activation that is the only consumer of a value NxCxHxW: ``function`` of (values, kinds).

    Where it differs between channels (``quant.scaled_silu``), ``kinds`` (C,) says by number which one each takes.
    """

    function: Callable[[Tensor, Tensor], Tensor]
    kinds: Tensor | None = None


def make_observer(method: str, percentile: float, consumer: ElementwiseConsumer | None = None) -> RangeObserver:
    """The observer for ``minmax``, ``moving_average``, ``percentile`` (of both tails), ``histogram`` or ``mse``.

    ``histogram`` is the range of least squared error (L2). ``mse`` is too, but where an elementwise ``consumer`` (SiLU)
    is the only one, the error is taken behind it.
    """
    if method == "minmax":
        return MinMaxObserver()
    if method == "moving_average":
        return MovingAverageObserver()
    return HistogramObserver(percentile if method == "percentile" else None, consumer if method == "mse" else None)


class MinMaxObserver:
    """Smallest and largest value seen."""

    def __init__(self) -> None:
        self.low = self.high = torch.zeros(1)

    def update(self, x: Tensor) -> None:
        """Take in one batch."""
        low, high = x.aminmax()
        self.low, self.high = torch.minimum(self.low.to(low), low), torch.maximum(self.high.to(high), high)

    def limits(self) -> tuple[Tensor, Tensor]:
        """The extremes."""
        return self.low, self.high


class MovingAverageObserver:
    """Averages of the batches' smallest and largest values, the latest weighing 0.1."""

    def __init__(self) -> None:
        self.low: Tensor | None = None
        self.high: Tensor | None = None

    def update(self, x: Tensor) -> None:
        """Take in one batch."""
        low, high = (value.reshape(1) for value in x.aminmax())
        self.low = low if self.low is None else self.low + 0.1 * (low - self.low)
        self.high = high if self.high is None else self.high + 0.1 * (high - self.high)

    def limits(self) -> tuple[Tensor, Tensor]:
        """The averages."""
        if self.low is None or self.high is None:
            raise ValueError("a quantizer has seen no calibration batch")
        return self.low, self.high


class HistogramObserver:
    """A histogram that widens as needed; the range ends at a percentile, or where the squared error is least.

    The squared error is that of rounding and clipping all seen values to 255 levels (as in the L2 range setting of
    arXiv:2106.08295, section 3.1), searched over the upper end, then the lower, ever finer. Where an activation
    function is the only ``consumer`` of the values the error is measured behind it: SiLU flattens its negative side, on
    which a range would be wasted. Channels between which it differs are counted apart.
    """

    def __init__(self, percentile: float | None, consumer: ElementwiseConsumer | None = None) -> None:
        self.percentile = percentile
        self.consumer = consumer or ElementwiseConsumer(lambda values, kinds: values)
        self.counts: Tensor | None = None  # (kinds, bins)
        self.low = self.high = 0.0

    def update(self, x: Tensor) -> None:
        """Take in one batch."""
        planes = x.float().flatten(2) if x.dim() > 2 else x.float().reshape(1, 1, -1)
        counted = planes[..., :: planes.numel() // _COUNTED | 1]  # an odd step leaves out no column of the picture
        low, high = (float(end) for end in counted.aminmax())
        if not math.isfinite(high - low):
            raise FloatingPointError(f"a calibration batch holds values from {low} to {high}")
        kinds = self.consumer.kinds
        if self.counts is None:
            self.low, self.high = min(low, 0.0), max(high, _EPS)
            self.counts = torch.zeros(1 if kinds is None else int(kinds.max()) + 1, _BINS, dtype=torch.float64)
        elif low < self.low or high > self.high:
            self._widen(min(low, self.low), max(high, self.high))
        for kind, counts in enumerate(self.counts):
            part = counted if kinds is None else counted[:, kinds.to(x.device) == kind]
            counts += torch.histc(part, _BINS, self.low, self.high).double().cpu()

    def _widen(self, low: float, high: float) -> None:
        assert self.counts is not None
        # Half as much again on the side that grew: few batches then need another rebinning.
        low = low if low == self.low else 1.5 * low
        high = high if high == self.high else 1.5 * high
        index = ((self.centres() - low) / (high - low) * _BINS).long().clamp(0, _BINS - 1)
        self.counts = torch.zeros_like(self.counts).index_add_(1, index, self.counts)
        self.low, self.high = low, high

    def centres(self) -> Tensor:
        """Middle values of the bins (float64)."""
        width = (self.high - self.low) / _BINS
        return self.low + width * (torch.arange(_BINS, dtype=torch.float64) + 0.5)

    def limits(self) -> tuple[Tensor, Tensor]:
        """The range by percentile or by least squared error."""
        if self.counts is None:
            raise ValueError("a quantizer has seen no calibration batch")
        filled = self.counts.sum(0).nonzero().flatten()
        width = (self.high - self.low) / _BINS
        low = self.low + width * float(filled[0])
        high = self.low + width * (float(filled[-1]) + 1)
        if self.percentile is not None:
            low, high = self._percentile_limits()
        else:
            low, high = self._least_error_limits(low, high)
        return torch.tensor([low], dtype=torch.float32), torch.tensor([high], dtype=torch.float32)

    def _percentile_limits(self) -> tuple[float, float]:
        assert self.counts is not None
        assert self.percentile is not None
        cumulative = self.counts.sum(0).cumsum(0) / self.counts.sum()
        tail = 1.0 - self.percentile / 100.0
        centres = self.centres()
        first = int((cumulative > tail).nonzero()[0])
        last = int((cumulative >= 1.0 - tail).nonzero()[0])
        return float(centres[first]), float(centres[last])

    def _least_error_limits(self, low: float, high: float) -> tuple[float, float]:
        moments = self._moments()
        for fractions in _SEARCHES:
            if high > 0:
                errors = self._errors(torch.full_like(fractions, low), high * fractions, moments)
                high *= float(fractions[errors.argmin()])
            if low < 0:
                errors = self._errors(low * fractions, torch.full_like(fractions, high), moments)
                low *= float(fractions[errors.argmin()])
        return low, high

    def _moments(self) -> list[Tensor]:
        """Of the values behind the consumer the number, sum and sum of squares below every edge (kinds, bins + 1)."""
        assert self.counts is not None
        kinds = torch.arange(len(self.counts))[:, None]
        value = self.consumer.function(self.centres()[None], kinds)
        return [F.pad((self.counts * value**power).cumsum(1), (1, 0)) for power in range(3)]

    def _errors(self, low: Tensor, high: Tensor, moments: list[Tensor]) -> Tensor:
        """The squared error of each of the ranges (T,): by level, from sums over the bins that round to it."""
        scale, zero_point = affine_qparams(low, high)
        levels = torch.arange(_LEVELS + 1) - zero_point[:, None]
        width = (self.high - self.low) / _BINS
        edges = (((levels[:, 1:] - 0.5) * scale[:, None] - self.low) / width - 0.5).ceil().clamp(0, _BINS).long()
        edges = torch.cat([torch.zeros_like(edges[:, :1]), edges, torch.full_like(edges[:, :1], _BINS)], 1)
        kinds = torch.arange(len(moments[0]))[:, None, None]
        level = self.consumer.function(levels * scale[:, None], kinds)
        count, sums, squares = (moment[:, edges].diff() for moment in moments)
        return (count * level**2 - 2.0 * sums * level + squares).sum((0, 2))


def weight_limits(weight: Tensor, method: str, per_channel: bool, quant_max: int) -> tuple[Tensor, Tensor]:
    """Symmetric limits of a weight (out, ...), one a channel or one in all, by ``minmax`` or least squared error."""
    rows = weight.detach().reshape(len(weight) if per_channel else 1, -1)
    largest = rows.abs().amax(1)
    if method == "minmax":
        return -largest, largest
    best, best_error = largest.clone(), torch.full_like(largest, float("inf"))
    for fraction in torch.linspace(0.4, 1.0, 61).tolist():
        scale = (largest * fraction / quant_max).clamp_min(_EPS)[:, None]
        error = (((rows / scale).round().clamp(-quant_max, quant_max) * scale - rows) ** 2).sum(1)
        better = error < best_error
        best = torch.where(better, largest * fraction, best)
        best_error = torch.where(better, error, best_error)
    return -best, best
