"""One quantizer: its modes, its grid, its gradient."""

import pytest
import torch
from torch import Tensor

from quant.fake_quantize import MODES, FakeQuantize
from quant.ranges import MinMaxObserver

VALUES = torch.linspace(-3.0, 5.0, 2001)
WEIGHT = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 5, 0.1, 0]).reshape(
    4, 1, 1, 1
)


def activation(low: float = -1.0, high: float = 3.0, **options) -> FakeQuantize:
    quantizer = FakeQuantize(**options)
    quantizer.set_range(torch.tensor([low]), torch.tensor([high]))
    quantizer.set_mode("freeze")
    return quantizer


def weight_quantizer(per_channel: bool, method: str = "minmax") -> FakeQuantize:
    quantizer = FakeQuantize(weight=True, channels=len(WEIGHT) if per_channel else None)
    quantizer.set_range_from_weight(WEIGHT, method)
    quantizer.set_mode("freeze")
    return quantizer


def qparams(quantizer: FakeQuantize) -> list[Tensor]:
    return [getattr(quantizer, name).clone() for name in ("scale", "zero_point", "low", "high")]


def test_off_and_calibrate_pass_values_through_and_only_calibrate_looks():
    quantizer, observer = FakeQuantize(), MinMaxObserver()
    assert quantizer(VALUES) is VALUES
    quantizer.set_mode("calibrate", observer)
    assert quantizer(VALUES) is VALUES
    assert [float(limit) for limit in observer.limits()] == [-3.0, 5.0]
    quantizer.set_mode("off")
    quantizer(10 * VALUES)
    assert float(observer.limits()[1]) == 5.0
    assert quantizer.observer is None


def test_an_unknown_mode_is_named():
    with pytest.raises(ValueError, match="'on'"):
        FakeQuantize().set_mode("on")


def test_activations_lie_on_at_most_256_levels_and_use_them_all():
    quantizer = activation()
    levels = quantizer(VALUES).unique()
    steps = (levels / quantizer.scale + quantizer.zero_point).double()
    assert len(levels) == 256
    assert torch.allclose(steps, steps.round(), atol=1e-4)
    assert steps.min().round() == 0
    assert steps.max().round() == 255
    assert (levels == 0.0).any()


@pytest.mark.parametrize("per_channel", [False, True])
def test_weights_lie_on_255_symmetric_levels(per_channel):
    quantizer = weight_quantizer(per_channel)
    assert (quantizer.zero_point == 0).all()
    out = quantizer(WEIGHT)
    steps = out / quantizer.scale.reshape(-1, 1, 1, 1)
    assert torch.allclose(steps, steps.round(), atol=1e-3)
    largest = steps.abs().amax((1, 2, 3)).round()
    assert largest.max() == 127
    if per_channel:
        assert largest.tolist() == [127, 127, 127, 0]
    assert torch.isfinite(out).all()
    dense = torch.linspace(-30, 30, 100_000).reshape(1, -1, 1, 1).expand(4, -1, 1, 1)
    assert len(quantizer(dense)[1].unique()) == 255


def test_values_inside_the_range_move_by_half_a_step_at_most():
    quantizer = activation()
    inside = VALUES[(VALUES >= -1) & (VALUES <= 3)]
    assert (quantizer(inside) - inside).abs().max() <= 0.5001 * quantizer.scale


@pytest.mark.parametrize("per_channel", [None, False, True])
def test_the_integers_times_the_scale_are_the_fake_quantized_values(per_channel):
    quantizer, x = (activation(), VALUES) if per_channel is None else (weight_quantizer(per_channel), WEIGHT)
    shape = (-1, *[1] * (x.dim() - 1))
    integers = quantizer.quantize(x)
    assert integers.dtype == torch.int32
    assert integers.min() >= quantizer.quant_min
    assert integers.max() <= quantizer.quant_max
    back = (integers - quantizer.zero_point.reshape(shape)) * quantizer.scale.reshape(shape)
    # An exact tie may fall to either side: one step, in few places.
    off = ((back - quantizer(x)).abs() > 1e-4 * quantizer.scale.reshape(shape)).float().mean()
    assert off <= 1e-3


@pytest.mark.parametrize("mode", ["freeze", "moving_average"])
@pytest.mark.parametrize("per_channel", [None, True])
def test_the_gradient_goes_straight_through_inside_the_range_and_stops_outside(mode, per_channel):
    quantizer = activation() if per_channel is None else weight_quantizer(True)
    x = (VALUES if per_channel is None else WEIGHT).clone().requires_grad_()
    quantizer.set_mode(mode)
    quantizer(x).sum().backward()
    assert x.grad is not None
    if per_channel:
        assert (x.grad[:3] == 1).all()
    else:
        low, high = float(quantizer.low), float(quantizer.high)
        margin = float(quantizer.scale)
        assert (x.grad[(x > low + margin) & (x < high - margin)] == 1).all()
        assert (x.grad[(x < low - margin) | (x > high + margin)] == 0).all()
        assert (x.grad == 0).any()


def test_frozen_ranges_do_not_move_and_followed_ones_do():
    frozen, followed = activation(), activation()
    before = qparams(frozen)
    followed.set_mode("moving_average")
    for quantizer in (frozen, followed):
        quantizer(10 * VALUES)
    assert all(torch.equal(one, other) for one, other in zip(qparams(frozen), before, strict=True))
    shares = ((float(followed.high) - 3.0) / (50.0 - 3.0), (float(followed.low) + 1.0) / (-30.0 + 1.0))
    assert 0 < shares[0] < 0.2, "one batch moves the range a little"
    assert shares[1] == pytest.approx(shares[0], rel=1e-3)


def test_a_cold_activation_takes_its_first_range_from_the_first_batch():
    quantizer = FakeQuantize()
    quantizer.set_mode("moving_average")
    out = quantizer(VALUES)
    assert (float(quantizer.low), float(quantizer.high)) == (-3.0, 5.0)
    assert (out - VALUES).abs().max() <= 0.51 * quantizer.scale


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_followed_weight_has_the_range_of_this_very_weight(per_channel):
    followed, frozen = weight_quantizer(per_channel), weight_quantizer(per_channel)
    followed.set_mode("moving_average")
    followed(100 * WEIGHT)
    out = followed(WEIGHT)
    assert torch.allclose(out, frozen(WEIGHT), atol=1e-6)
    alive = slice(0, 3) if per_channel else slice(None)
    assert torch.allclose(followed.scale[alive], frozen.scale[alive], rtol=1e-6)
    assert (followed.zero_point == 0).all()


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_followed_weight_of_one_sign_stays_symmetric(per_channel, sign):
    """int8 weights have zero point 0; an asymmetric range would train a grid that no engine has."""
    weight = sign * WEIGHT.abs()
    quantizer = weight_quantizer(per_channel)
    quantizer.set_mode("moving_average")
    out = quantizer(weight)
    assert (quantizer.zero_point == 0).all()
    quantizer.set_range_from_weight(weight, "minmax")
    quantizer.set_mode("freeze")
    assert (quantizer.zero_point == 0).all()
    assert torch.allclose(out, quantizer(weight), atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_a_fixed_quantizer_never_changes(mode):
    quantizer = FakeQuantize(fixed=(1 / 256, 0))
    before = qparams(quantizer)
    quantizer.set_mode(mode, MinMaxObserver())
    quantizer(VALUES)
    assert quantizer.mode != "moving_average"
    assert quantizer.observer is None
    assert all(torch.equal(one, other) for one, other in zip(qparams(quantizer), before, strict=True))


@pytest.mark.parametrize("mode", ["freeze", "moving_average"])
def test_a_limit_caps_the_upper_end(mode):
    quantizer = activation(0.0, 20.0, limit=6.0)
    assert float(quantizer.high) == 6.0
    assert float(quantizer.scale) == pytest.approx(6.0 / 255)
    quantizer.set_mode(mode)
    assert float(quantizer(torch.linspace(0, 20, 500)).max()) == pytest.approx(6.0, abs=1e-3)
    assert float(quantizer.high) <= 6.0


def test_a_limit_does_not_widen_a_smaller_range():
    assert float(activation(0.0, 2.0, limit=6.0).high) == 2.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_range_that_is_not_finite_is_refused(bad):
    with pytest.raises(FloatingPointError, match="not finite"):
        FakeQuantize().set_range(torch.tensor([0.0]), torch.tensor([bad]))


def test_the_state_dict_carries_the_scale_and_the_range():
    source, target = weight_quantizer(True, "mse"), FakeQuantize(weight=True, channels=4)
    target.load_state_dict(source.state_dict())
    target.set_mode("freeze")
    assert torch.equal(source(WEIGHT), target(WEIGHT))
    assert all(torch.equal(one, other) for one, other in zip(qparams(source), qparams(target), strict=True))
