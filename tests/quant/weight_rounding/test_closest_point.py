"""What closest-point rounding finds, against trying everything."""

import itertools

import pytest
import torch
from torch import Tensor

from quant.weight_rounding.closest_point import closest_point, distance, rounded

COLUMNS = 5


def problem(groups: int = 40, rows: int = 3, correlation: float = 0.95, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Targets, second moments of inputs that move together, and a step a row."""
    generator = torch.Generator().manual_seed(seed)
    own = torch.randn(groups, COLUMNS, 50, generator=generator, dtype=torch.float64)
    common = torch.randn(groups, 1, 50, generator=generator, dtype=torch.float64)
    inputs = (1 - correlation) * own + correlation * common
    target = torch.randn(groups, rows, COLUMNS, generator=generator, dtype=torch.float64)
    step = 0.1 + torch.rand(groups, rows, generator=generator, dtype=torch.float64)
    return target, inputs @ inputs.mT / 50, step


def all_neighbours(target: Tensor, step: Tensor, limit: int, reach: int = 2) -> Tensor:
    """Every choice of integers up to ``reach`` from the nearest ones (choices, groups, rows, columns)."""
    nearest = (target / step[..., None]).round()
    moves = torch.tensor(list(itertools.product(range(-reach, reach + 1), repeat=COLUMNS)), dtype=torch.float64)
    return (nearest + moves[:, None, None]).clamp(-limit, limit) * step[..., None]


@pytest.mark.parametrize("limit", [127, 1])
def test_it_comes_close_to_the_best_of_all_neighbours_where_nearest_rounding_does_not(limit):
    target, gram, step = problem()
    least = distance(all_neighbours(target, step, limit), target, gram).amin(0).sum()
    closest = distance(closest_point(target, gram, step, limit, sweeps=10), target, gram).sum()
    nearest = distance(rounded(target, step[..., None], limit), target, gram).sum()
    assert closest <= 1.25 * least
    assert nearest > 1.5 * least


def test_no_single_integer_can_be_moved_to_advantage():
    target, gram, step = problem()
    closest = closest_point(target, gram, step, 127, sweeps=100)
    least = distance(closest, target, gram)
    for column, move in itertools.product(range(COLUMNS), (-1, 1)):
        moved = closest.clone()
        moved[..., column] += move * step
        assert (distance(moved, target, gram) >= least * (1 - 1e-9)).all()


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("limit", [127, 1])
def test_no_row_is_worse_than_nearest_rounding(correlation, limit):
    target, gram, step = problem(correlation=correlation)
    gram = gram + 1e-6 * torch.eye(COLUMNS, dtype=gram.dtype)
    closest = closest_point(target, gram, step, limit, sweeps=10)
    nearest = rounded(target, step[..., None], limit)
    assert (distance(closest, target, gram) <= distance(nearest, target, gram)).all()


def test_with_independent_inputs_it_is_nearest_rounding():
    target, gram, step = problem()
    alone = torch.diag_embed(gram.diagonal(dim1=1, dim2=2))
    assert torch.equal(closest_point(target, alone, step, 127, sweeps=10), rounded(target, step[..., None], 127))


@pytest.mark.parametrize("limit", [127, 2])
def test_all_weights_are_multiples_of_their_rows_step_within_the_limit(limit):
    target, gram, step = problem()
    integers = closest_point(target, gram, step, limit, sweeps=10) / step[..., None]
    assert torch.allclose(integers, integers.round(), atol=1e-9)
    assert integers.abs().max() <= limit + 1e-9


def test_one_step_for_all_is_the_same_as_that_step_for_each_row():
    target, gram, step = problem()
    one = torch.full((1, 1), 0.3, dtype=torch.float64)
    closest = closest_point(target, gram, one, 127, sweeps=10)
    assert torch.equal(closest, closest_point(target, gram, one.expand_as(step), 127, sweeps=10))


@pytest.mark.parametrize("block", [1, 7, 16])
def test_blocks_of_columns_change_the_cost_and_nothing_else(block, monkeypatch):
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(2, 40, 60, generator=generator, dtype=torch.float64)
    inputs += 2 * torch.randn(2, 1, 60, generator=generator, dtype=torch.float64)
    target = torch.randn(2, 6, 40, generator=generator, dtype=torch.float64)
    step = 0.05 + 0.2 * torch.rand(2, 6, generator=generator, dtype=torch.float64)
    whole = closest_point(target, inputs @ inputs.mT / 60, step, 7, sweeps=10)
    monkeypatch.setattr("quant.weight_rounding.closest_point._BLOCK", block)
    assert torch.equal(closest_point(target, inputs @ inputs.mT / 60, step, 7, sweeps=10), whole)
