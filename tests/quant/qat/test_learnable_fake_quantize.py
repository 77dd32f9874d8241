"""That learned ranges round as the quantizer does, have the gradients of the papers, and end as plain ranges."""

import copy

import pytest
import torch
from torch import Tensor

from model.epochs import TrainingRun
from model.images import normalize
from model.training import validate
from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.fake_quantize import FakeQuantize
from quant.qat.finetune import finetune, prepare_for_qat
from quant.qat.grid_adam import GridAdam
from quant.qat.learnable_fake_quantize import LearnableFakeQuantize
from quant.recipe import CalibrateSpec, QatSpec
from tests.quant.networks import AllKinds, activation_quantizers, reference, settled, weight_quantizers

CALIBRATE = CalibrateSpec(activation_range="minmax")
SPEC = QatSpec(epochs=2, batch_size=4, travel=2.0, learned_scales=True)


@pytest.fixture(scope="module")
def network(pack):
    torch.manual_seed(0)
    return settled(AllKinds(), normalize(pack.images("train")))


class Rounded(torch.autograd.Function):
    """Rounding with the gradient of the identity."""

    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def by_autograd(x: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
    """The same rounding composed of operators, with a straight-through gradient of rounding alone."""
    zero_point = Rounded.apply(zero_point)
    level = Rounded.apply(x / scale) + zero_point
    level = torch.where(level < low, low, torch.where(level > high, high, level))  # clamp has no gradient at its ends
    return (level - zero_point) * scale


@pytest.mark.parametrize("kind", ["affine", "one_sided", "weight", "weight_per_channel"])
def test_gradients_are_those_of_rounding_passed_straight_through(kind):
    torch.manual_seed(0)
    weight, per_channel = "weight" in kind, kind == "weight_per_channel"
    x = torch.randn(6, 4, 5, 5) * 3
    scale = torch.rand(6) * 0.02 + 0.02 if per_channel else torch.tensor([0.02])
    zero_point = torch.full_like(scale, {"affine": 100.3}.get(kind, 0.0))
    low, high = (-127, 127) if weight else (0, 255)
    learned = LearnableFakeQuantize(scale, zero_point, low, high, per_channel=per_channel, limit=None)
    given, expected_given = x.clone().requires_grad_(), x.clone().requires_grad_()
    plain = [scale.clone().requires_grad_(), zero_point.clone().requires_grad_()]
    shape = (-1, 1, 1, 1)
    expected = by_autograd(expected_given, *(value.reshape(shape) for value in plain), low, high)
    output, sent = learned(given), torch.randn(6, 4, 5, 5)
    assert torch.allclose(output, expected, atol=1e-6)
    output.backward(sent)
    expected.backward(sent)
    clipped = (given.grad == 0).float().mean()
    assert 0.1 < clipped < 0.9, "both sides of the range's end are looked at"
    assert torch.allclose(given.grad, expected_given.grad, rtol=1e-5)
    elements = 100 if per_channel or not weight else 600
    damping = 1 / (elements * high) ** 0.5
    assert torch.allclose(learned.scale.grad, plain[0].grad * damping, rtol=1e-4)
    assert learned.zero_point.requires_grad == (kind == "affine")
    if kind == "affine":
        assert torch.allclose(learned.zero_point.grad, plain[1].grad * damping, rtol=1e-4)


@pytest.mark.parametrize("weight", [False, True])
def test_learning_starts_from_the_range_as_it_stands_and_ends_as_a_plain_one(weight):
    values = torch.linspace(-2.0, 3.0, 1200).reshape(4, 3, 10, 10)
    quantizer = FakeQuantize(weight=weight, channels=4 if weight else None)
    quantizer.set_range(torch.tensor([-1.0]), torch.tensor([2.0]))
    quantizer.set_mode("freeze")
    keys, before = list(quantizer.state_dict()), quantizer(values)
    quantizer.set_mode("learn")
    assert torch.equal(quantizer(values), before)
    with torch.no_grad():
        quantizer.learned.scale.mul_(1.5)
    after = quantizer(values).detach()
    assert not torch.equal(after, before)
    quantizer.set_mode("freeze")
    assert torch.equal(quantizer(values), after)
    assert list(quantizer.state_dict()) == keys
    assert not list(quantizer.parameters())
    assert torch.allclose(quantizer.high, torch.tensor(3.0), rtol=1e-2)


def test_a_fixed_quantizer_does_not_learn():
    quantizer = FakeQuantize(fixed=(1 / 256, 0))
    quantizer.set_mode("learn")
    assert quantizer.mode == "freeze"
    assert not list(quantizer.parameters())


def test_a_range_that_stands_for_a_clamp_never_grows_over_it():
    quantizer = FakeQuantize(limit=6.0)
    quantizer.set_range(torch.tensor([0.0]), torch.tensor([5.0]))
    quantizer.set_mode("learn")
    with torch.no_grad():
        quantizer.learned.scale.fill_(1.0)
    quantizer.learned.project_()
    assert float(quantizer(torch.tensor([[9.0]])).detach()) == pytest.approx(6.0)


def test_a_range_that_is_far_too_wide_learns_to_fit_its_values():
    """Descent on the rounding error itself: the setting in which the papers' gradient must point downhill."""
    torch.manual_seed(0)
    values = torch.randn(64, 512) + 1.0
    quantizer = FakeQuantize()
    quantizer.set_range(torch.tensor([-60.0]), torch.tensor([60.0]))
    quantizer.set_mode("learn")
    learned = quantizer.learned
    units = {learned.scale: learned.scale.detach().clone(), learned.zero_point: torch.tensor([255.0])}
    optimizer = GridAdam(units, 0.01, 0.0)

    def error() -> Tensor:
        return (quantizer(values) - values).square().mean()

    before = float(error().detach())
    for _ in range(150):
        optimizer.zero_grad()
        error().backward()
        optimizer.step()
        learned.project_()
    assert float(error().detach()) < 0.05 * before


@pytest.mark.parametrize("start", ["cold", "calibrated"])
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_a_training_moves_all_ranges_and_leaves_a_network_that_converts(network, pack, granularity, start):
    images = normalize(pack.images("train"))
    cold = start == "cold"
    prepared = (
        prepare_for_qat(network, granularity, CALIBRATE) if cold else calibrate(network, granularity, CALIBRATE, images)
    )
    keys = list(prepared.state_dict())
    scales = {name: q.scale.clone() for name, q in weight_quantizers(prepared).items()}
    run = TrainingRun(pack, 0, torch.device("cpu"))
    history = finetune(prepared, copy.deepcopy(network), SPEC, run).history
    assert max(history, key=lambda row: row["val_ssim"])["epoch"] > 0
    assert all((q.scale != scales[name]).any() for name, q in weight_quantizers(prepared).items())
    assert all(float(q.scale) == pytest.approx(1 / 256) for q in activation_quantizers(prepared).values() if q.fixed)
    assert list(prepared.state_dict()) == keys
    again = validate(prepared, pack, torch.device("cpu"))
    assert again["ssim"] == max(row["val_ssim"] for row in history)
    shipped, simulated = (reference(one, images) for one in (qnnpack.convert(prepared), prepared))
    head = prepared.get_submodule("quantizers.head").scale
    assert (simulated - shipped).abs().max() <= 4 * head
