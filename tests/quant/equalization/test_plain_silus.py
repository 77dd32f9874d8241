"""SiLUs without scales: the noise that may be added is not exceeded, and the large ones come first."""

import copy

import pytest
import torch
from torch import Tensor, nn

from model.errors import InputError
from quant.calibrate import calibrate
from quant.engines.decomposed import ConstantScaledSiLU, decompose
from quant.engines.int8_forms import _Slope, int8_gates
from quant.engines.xnnpack import GATE
from quant.equalization.channel_classes import channel_classes
from quant.equalization.equalize import equalize, noise_model
from quant.equalization.plain_silus import elements, left_out
from quant.recipe import CalibrateSpec, EqualizeSpec
from quant.scaled_silu import ScaledSiLU, scale_silus
from quant.tracing.trace import trace
from tests.quant.networks import reference, settled


class Two(nn.Module):
    """A large SiLU, and a small one with the same channels and ranges: four times fewer pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.large = nn.SiLU()
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, stride=2, groups=8)
        self.small = nn.SiLU()
        self.head = nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.small(self.depthwise(self.large(self.stem(x)))))


@pytest.fixture(scope="module")
def network(images):
    torch.manual_seed(0)
    return settled(Two(), images)


@pytest.fixture(scope="module")
def parts(network, images):
    """The model, its solution, the classes and the sizes of the SiLUs."""
    graph_module = scale_silus(trace(network))
    classes = channel_classes(graph_module)
    model = noise_model(graph_module, classes, images, 4, "per_channel")
    return model, model.solve(), classes, elements(graph_module, classes.silus, images[:1])


def scaled(network: nn.Module) -> list[bool]:
    """Of each SiLU whether its channels carry scales."""
    return [bool(module.exponent.any()) for module in network.modules() if isinstance(module, ScaledSiLU)]


def test_elements_are_those_of_one_image(parts, images):
    _, _, classes, sizes = parts
    pixels = images[0, 0].numel()
    assert [sizes[node] for node in classes.silus] == [8 * pixels, 8 * pixels // 4]


@pytest.mark.parametrize("loss_db", [0.5, 6.0])
def test_the_predicted_noise_rises_by_no_more_than_is_allowed(parts, loss_db):
    model, theta, classes, sizes = parts
    held = left_out(model, theta, classes, sizes, loss_db)
    without = model.solve(held, theta)
    assert bool((without[held] == 0).all())
    allowed = 10 ** (loss_db / 10) * float(model.noise(theta).sum())
    assert float(model.noise(without).sum()) <= 1.03 * allowed  # the rises add up nearly, not quite


def test_what_costs_the_least_noise_for_its_size_is_left_out_first(parts):
    model, theta, classes, _ = parts
    first, second = classes.silus
    alike = dict.fromkeys(classes.silus, 1000)

    def alone(sizes, loss_db):
        held = left_out(model, theta, classes, sizes, loss_db)
        return [bool(held[torch.from_numpy(classes.values[node])].all()) for node in (first, second)]

    least = float(model.noise(theta).sum())
    rises = []
    for node in (first, second):
        own = torch.zeros(model.count, dtype=torch.bool)
        own[torch.from_numpy(classes.values[node])] = True
        rises.append(float(model.noise(model.solve(own, theta, 6)).sum()) / least - 1)
    enough = 10 * torch.log10(torch.tensor(1 + 1.01 * max(rises))).item()  # for either, not for both
    assert min(rises) > 0.05 * max(rises)
    assert alone({**alike, first: 10**5}, enough)[0]
    assert alone({**alike, second: 10**5}, enough)[1]


def test_with_enough_allowed_no_silu_carries_scales_and_xnnpack_multiplies_by_none(network, images):
    slopes = []
    for loss_db in (0.0, 60.0):
        found = equalize(copy.deepcopy(network), EqualizeSpec(images=4, silu_loss_db=loss_db), images, "per_tensor")
        assert torch.allclose(reference(found, images), reference(network, images), rtol=1e-3, atol=1e-4)
        assert scaled(found) == [loss_db == 0.0] * 2
        plain = decompose(calibrate(found, "per_tensor", CalibrateSpec(), images), signed=True)
        assert sum(isinstance(module, ConstantScaledSiLU) for module in plain.modules()) == 2
        slopes.append(sum(isinstance(module, _Slope) for module in int8_gates(plain, GATE).modules()))
    assert slopes == [2, 0]


def test_a_negative_loss_is_refused():
    with pytest.raises(InputError, match=r"equalize\.silu_loss_db"):
        EqualizeSpec(silu_loss_db=-1.0)
