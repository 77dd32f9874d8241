"""95 % intervals of a mean by Student's t, without a statistics library."""

import math
import statistics
from collections.abc import Sequence

FEWEST = 3  # of fewer values an interval says next to nothing
_T_SMALL = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)
_Z = 1.959964


def t_quantile(freedom: int) -> float:
    """Return the 97.5 % point of Student's t with ``freedom`` degrees of freedom, to 0.01 %.

    Up to 9 from a table, beyond by the expansion around the normal quantile (Abramowitz and Stegun 1964, 26.7.5).
    Raises ValueError below 1.
    """
    if freedom < 1:
        raise ValueError(f"{freedom} degrees of freedom; expected at least 1")
    if freedom <= len(_T_SMALL):
        return _T_SMALL[freedom - 1]
    z = _Z
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean of ``values``; None of fewer than 3."""
    if len(values) < FEWEST:
        return None
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    half = t_quantile(len(values) - 1) * deviation / math.sqrt(len(values))
    return mean - half, mean + half
