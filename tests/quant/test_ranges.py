"""What each range setting does, on data whose answer is known."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from quant.ranges import (
    ElementwiseConsumer,
    HistogramObserver,
    MinMaxObserver,
    MovingAverageObserver,
    affine_qparams,
    make_observer,
    symmetric_qparams,
    weight_limits,
)
from quant.scaled_silu import ScaledSiLU

GENERATOR = torch.Generator().manual_seed(0)
SAMPLES = {
    "normal": torch.randn(20_000, generator=GENERATOR),
    "relu": torch.randn(20_000, generator=GENERATOR).clamp_min(0),
    "heavy_tails": torch.randn(20_000, generator=GENERATOR) ** 3,
    "one_outlier": torch.cat([torch.randn(20_000, generator=GENERATOR), torch.tensor([40.0])]),
    "silu": functional.silu(3 * torch.randn(20_000, generator=GENERATOR)),
    "negative": -torch.rand(20_000, generator=GENERATOR) - 1.0,
    "offset": torch.rand(20_000, generator=GENERATOR) + 5.0,
}


def limits(observer, *batches: Tensor) -> tuple[float, float]:
    for batch in batches:
        observer.update(batch)
    low, high = observer.limits()
    assert low.shape == high.shape == (1,)
    return float(low), float(high)


def squared_error(values: Tensor, low: Tensor | float, high: Tensor | float) -> float:
    """Of rounding and clipping to 256 levels over [low, high]."""
    scale, zero_point = affine_qparams(*(torch.as_tensor(end).reshape(1).float() for end in (low, high)))
    rounded = torch.fake_quantize_per_tensor_affine(values, scale, zero_point, 0, 255)
    return float(((rounded - values).double() ** 2).sum())


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.5, 2.0), (-4.0, -1.0), (0.0, 0.0), (-1e-8, 1e-8)])
def test_zero_is_exact_and_the_range_is_held(low, high):
    scale, zero_point = affine_qparams(torch.tensor([low]), torch.tensor([high]))
    assert scale > 0
    assert 0 <= zero_point <= 255
    assert -scale * zero_point <= min(low, 0.0) + 0.51 * scale
    assert scale * (255 - zero_point) >= max(high, 0.0) - 0.51 * scale


def test_the_scale_of_an_affine_range_is_its_width_over_255():
    scale, zero_point = affine_qparams(torch.tensor([-1.0]), torch.tensor([4.1]))
    assert float(scale) == pytest.approx(5.1 / 255)
    assert int(zero_point) == 50


def test_the_symmetric_scale_holds_the_larger_side_and_is_never_zero():
    low, high = torch.tensor([-2.0, -1.0, 0.0]), torch.tensor([1.0, 3.0, 0.0])
    scale = symmetric_qparams(low, high, 127)
    assert scale[:2].tolist() == pytest.approx([2 / 127, 3 / 127])
    assert 0 < scale[2] < 1e-6


def test_minmax_keeps_the_extremes_of_all_batches_and_zero():
    assert limits(MinMaxObserver(), torch.tensor([1.0, 2.0]), torch.tensor([0.5, 1.5])) == (0.0, 2.0)
    assert limits(MinMaxObserver(), torch.tensor([-3.0, 2.0]), torch.tensor([-1.0, 5.0]), torch.tensor([0.0])) == (
        -3.0,
        5.0,
    )


def test_the_moving_average_starts_at_the_first_batch_and_moves_a_tenth():
    assert limits(MovingAverageObserver(), torch.tensor([-1.0, 2.0])) == (-1.0, 2.0)
    low, high = limits(MovingAverageObserver(), torch.tensor([-1.0, 2.0]), torch.tensor([-2.0, 12.0]))
    assert (low, high) == pytest.approx((-1.1, 3.0))


def test_a_percentile_cuts_both_tails():
    values = torch.linspace(-1.0, 1.0, 100_001)
    low, high = limits(HistogramObserver(90.0), values)
    assert low == pytest.approx(-0.8, abs=2e-3)
    assert high == pytest.approx(0.8, abs=2e-3)


def test_a_percentile_ignores_an_outlier_and_minmax_does_not():
    values = SAMPLES["one_outlier"]
    assert limits(make_observer("minmax", 99.9), values)[1] == 40.0
    assert limits(make_observer("percentile", 99.9), values)[1] < 5.0


@pytest.mark.parametrize("name", SAMPLES)
def test_the_hundredth_percentile_is_minmax(name):
    values = SAMPLES[name]
    batches = (0.3 * values, values)  # the second one widens the histogram
    low, high = limits(MinMaxObserver(), *batches)
    width = (high - low) * 2 / 4096
    got_low, got_high = limits(HistogramObserver(100.0), *batches)
    assert min(got_low, 0.0) == pytest.approx(low, abs=width)
    assert max(got_high, 0.0) == pytest.approx(high, abs=width)


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("batches", [1, 5])
def test_mse_is_never_worse_in_squared_error_than_minmax(name, batches):
    values = SAMPLES[name]
    parts = values.sort().values.chunk(batches) if batches > 1 else (values,)
    least = squared_error(values, *limits(make_observer("mse", 99.9), *parts))
    extremes = squared_error(values, *limits(make_observer("minmax", 99.9), *parts))
    assert least <= 1.01 * extremes  # the histogram knows the values to a sixteenth of a level


def test_mse_clips_an_outlier_only_where_that_pays():
    draw = torch.Generator().manual_seed(2)
    batches = torch.randn(30, 400_000, generator=draw)  # of which a seventh is counted
    batches[torch.arange(30), torch.randint(400_000, (30,), generator=draw)] = 12.0
    low, high = limits(make_observer("mse", 99.9), *batches)
    assert 4.0 < high < 10.0
    values = batches.flatten()
    assert squared_error(values, low, high) < 0.8 * squared_error(values, float(values.min()), 12.0)
    few = torch.cat([torch.randn(100, generator=draw), torch.tensor([12.0])])
    assert limits(make_observer("mse", 99.9), few)[1] > 11.5
    even = torch.linspace(-1.0, 1.0, 10_001)
    assert limits(make_observer("mse", 99.9), even) == pytest.approx((-1.0, 1.0), abs=0.02)


def error_behind(values: Tensor, low: float, high: float, activation) -> float:
    scale, zero_point = affine_qparams(torch.tensor([low]), torch.tensor([high]))
    rounded = torch.fake_quantize_per_tensor_affine(values, scale, zero_point, 0, 255)
    return float(((activation(rounded) - activation(values)) ** 2).sum())


def test_mse_behind_an_activation_is_least_behind_the_activation():
    values = 3 * SAMPLES["normal"]
    plain = limits(make_observer("mse", 99.9), values)
    behind = limits(make_observer("mse", 99.9, ElementwiseConsumer(lambda x, kinds: functional.silu(x))), values)
    assert error_behind(values, *behind, functional.silu) < 0.9 * error_behind(values, *plain, functional.silu)
    assert behind[0] > plain[0], "the flat side of SiLU needs no range"
    assert squared_error(values, *plain) < squared_error(values, *behind)


@pytest.mark.parametrize("batches", [1, 5])
def test_mse_behind_silus_with_scales_tells_their_channels_apart(batches):
    silu = ScaledSiLU(3)
    silu.scale_(torch.tensor([-16.0, 0.0, 8.0]))
    values = SAMPLES["normal"][:19800].reshape(20, 3, 15, 22) * torch.tensor([0.5, 3.0, 6.0]).reshape(1, 3, 1, 1)
    parts = values.chunk(batches)
    plain = limits(make_observer("mse", 99.9), *parts)
    behind = limits(make_observer("mse", 99.9, silu.consumer()), *parts)
    as_one = limits(make_observer("mse", 99.9, ElementwiseConsumer(lambda x, kinds: functional.silu(x))), *parts)
    assert error_behind(values, *behind, silu) < 0.95 * error_behind(values, *plain, silu)
    assert error_behind(values, *behind, silu) < 0.99 * error_behind(values, *as_one, silu)


@pytest.mark.parametrize("factor", [1.01, 3.0, 1000.0])
def test_widening_the_histogram_loses_no_counts_and_little_precision(factor):
    values = SAMPLES["normal"]
    histogram = HistogramObserver(None)
    for scale in (1.0, factor, factor**2, 0.01):
        histogram.update(scale * values)
    assert histogram.counts is not None
    assert float(histogram.counts.sum()) == 4 * len(values)
    low, high = factor**2 * values.min(), factor**2 * values.max()
    assert histogram.low <= low
    assert high <= histogram.high
    mean = (histogram.centres() * histogram.counts).sum() / histogram.counts.sum()
    expected = torch.cat([scale * values for scale in (1.0, factor, factor**2, 0.01)]).double().mean()
    assert float(mean) == pytest.approx(float(expected), abs=2 * (histogram.high - histogram.low) / 4096)


@pytest.mark.parametrize("method", ["percentile", "mse", "moving_average"])
def test_a_quantizer_that_saw_nothing_says_so(method):
    with pytest.raises(ValueError, match="has seen no calibration batch"):
        make_observer(method, 99.9).limits()


@pytest.mark.parametrize("method", ["minmax", "moving_average", "percentile", "mse"])
@pytest.mark.parametrize("value", [0.0, 2.5, -2.5])
def test_a_constant_is_held_exactly_enough(method, value):
    low, high = limits(make_observer(method, 99.9), torch.full((100,), value))
    assert torch.isfinite(torch.tensor([low, high])).all()
    assert squared_error(torch.full((100,), value), low, high) <= 100 * (abs(value) / 200) ** 2


@pytest.mark.parametrize("method", ["minmax", "moving_average", "percentile", "mse"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("batch", [0, 1])
def test_values_that_are_not_finite_are_not_overlooked(method, bad, batch):
    observer = make_observer(method, 99.9)
    batches = [torch.linspace(-1, 1, 100), torch.linspace(-1, 1, 100)]
    batches[batch][3] = bad
    try:
        ends = limits(observer, *batches)
    except (RuntimeError, ArithmeticError, ValueError):
        return
    assert not torch.isfinite(torch.tensor(ends)).all(), "the quantizer's own check then fails"


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("shape", [(4, 50_000, 1, 1), (6, 8, 3, 3), (5, 1, 3, 3)])
def test_weight_mse_is_never_worse_than_minmax(per_channel, shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    weight *= torch.logspace(0, -2, shape[0]).reshape(-1, 1, 1, 1)

    def error(method: str) -> Tensor:
        _, high = weight_limits(weight, method, per_channel, 127)
        scale = (high / 127).reshape(-1, 1, 1, 1)
        rounded = (weight / scale).round().clamp(-127, 127) * scale
        return ((rounded - weight) ** 2).sum((1, 2, 3) if per_channel else (0, 1, 2, 3))

    assert (error("mse") <= error("minmax")).all()
    if shape[1] > 10_000:
        assert error("mse").sum() < 0.95 * error("minmax").sum(), "many weights pay for clipping the largest"


@pytest.mark.parametrize("method", ["minmax", "mse"])
def test_weight_limits_are_symmetric_and_one_a_channel_or_one_in_all(method):
    weight = torch.tensor([[1.0, -2.0], [0.5, 0.25], [0.0, 0.0]]).reshape(3, 2, 1, 1)
    for per_channel, count in ((True, 3), (False, 1)):
        low, high = weight_limits(weight, method, per_channel, 127)
        assert low.shape == high.shape == (count,)
        assert torch.equal(low, -high)
    assert weight_limits(weight, "minmax", True, 127)[1].tolist() == [2.0, 0.5, 0.0]
    assert weight_limits(weight, "minmax", False, 127)[1].tolist() == [2.0]
