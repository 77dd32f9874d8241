"""95 % intervals of a mean by Student's t."""

import math
import statistics
from collections.abc import Sequence

from scipy.special import stdtrit

FEWEST = 3  # of fewer values an interval says next to nothing


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean of ``values``; None of fewer than 3."""
    if len(values) < FEWEST:
        return None
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    half = float(stdtrit(len(values) - 1, 0.975)) * deviation / math.sqrt(len(values))
    return mean - half, mean + half
