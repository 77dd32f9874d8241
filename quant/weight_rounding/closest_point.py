"""Rounding as a closest-point search: the integers q of least ``(q - t) H (q - t)^T``, each row of t for itself.

Nearest-integer rounding minimizes the error of the weights. What counts is the error of the output, a quadratic form
with the second moments H of the inputs (AdaRound, arXiv:2004.10568). Nearest-plane rounding (Babai 1986,
doi:10.1007/BF02579403; on weights it is OPTQ, also known as GPTQ, arXiv:2210.17323, as arXiv:2507.18553 shows) rounds
one column after the other, the one of the largest input first (activation order), and lets the columns that are left
make up for its error. Coordinate descent (QuantEase, arXiv:2309.01885) then moves single integers until none helps.
Both work in blocks of columns: what a block changes reaches the columns outside it in one matrix product, as in OPTQ.
"""

import torch
from torch import Tensor

_BLOCK = 128


def closest_point(target: Tensor, gram: Tensor, step: Tensor, limit: int, sweeps: int) -> Tensor:
    """Multiples of ``step`` close to ``target`` in the norm of ``gram``, never worse than the nearest ones.

    Args:
        target: (groups, rows, columns), float64.
        gram: positive definite, (groups, columns, columns), float64.
        step: of each row, (groups, rows) or what broadcasts to it.
        limit: largest magnitude of the integers.
        sweeps: most passes of coordinate descent.
    """
    nearest = rounded(target, step[..., None], limit)
    closest = _descended(_nearest_plane(target, gram, step, limit), target, gram, step, limit, sweeps)
    better = distance(closest, target, gram) < distance(nearest, target, gram)
    return torch.where(better[..., None], closest, nearest)


def rounded(target: Tensor, step: Tensor, limit: int) -> Tensor:
    """The nearest multiples of ``step`` with integers up to ``limit``."""
    return (target / step).round().clamp(-limit, limit) * step


def distance(point: Tensor, target: Tensor, gram: Tensor) -> Tensor:
    """``(point - target) gram (point - target)^T`` of each row (groups, rows)."""
    error = point - target
    return ((error @ gram) * error).sum(-1)


def _nearest_plane(target: Tensor, gram: Tensor, step: Tensor, limit: int) -> Tensor:
    # The last column of the factorization is rounded first: the columns that matter most, while most are left.
    order = gram.diagonal(dim1=1, dim2=2).argsort(1)
    columns = target.shape[2]
    sorted_gram = gram.gather(1, order[:, :, None].expand_as(gram)).gather(2, order[:, None, :].expand_as(gram))
    factor = torch.linalg.cholesky(sorted_gram, upper=True)
    factor = factor / factor.diagonal(dim1=1, dim2=2)[:, :, None]
    index = order[:, None, :].expand_as(target)
    sorted_target = target.gather(2, index)
    error, point = torch.zeros_like(sorted_target), torch.empty_like(sorted_target)
    for end in range(columns, 0, -_BLOCK):
        start = max(end - _BLOCK, 0)
        carried = error[..., end:] @ factor[:, start:end, end:].mT
        for column in reversed(range(start, end)):
            within = (error[..., column + 1 : end] @ factor[:, column, column + 1 : end, None])[..., 0]
            point[..., column] = rounded(
                sorted_target[..., column] + carried[..., column - start] + within, step, limit
            )
            error[..., column] = sorted_target[..., column] - point[..., column]
    return torch.empty_like(point).scatter_(2, index, point)


def _descended(start: Tensor, target: Tensor, gram: Tensor, step: Tensor, limit: int, sweeps: int) -> Tensor:
    point = start.clone()
    curvature = gram.diagonal(dim1=1, dim2=2)[:, None]
    slope = (point - target) @ gram
    for _ in range(sweeps):
        moved = rounded(point - slope / curvature, step[..., None], limit)
        wanted = (moved != point).any(1).any(0)
        if not wanted.any():
            break
        for first in range(0, point.shape[2], _BLOCK):
            block = slice(first, first + _BLOCK)
            columns = wanted[block].nonzero().flatten() + first
            if not len(columns):
                continue
            before, own_slope = point[..., columns], slope[..., block].clone()
            for column in columns.tolist():  # one after the other: each move changes what the next should be
                aim = point[..., column] - own_slope[..., column - first] / curvature[..., column]
                change = rounded(aim, step, limit) - point[..., column]
                point[..., column] += change
                own_slope += change[..., None] * gram[:, None, column, block]
            slope += (point[..., columns] - before) @ gram[:, columns]
    return point
