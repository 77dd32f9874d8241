"""The predicted noise is the noise that is measured, and its least does not depend on earlier scales."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.noise import sqnr_db
from quant.bias_correction import correct_bias
from quant.calibrate import calibrate
from quant.equalization.channel_classes import channel_classes
from quant.equalization.equalize import _scale_, equalize, noise_model
from quant.equalization.noise_model import FIXED, NoiseModel, QuantizedTensor
from quant.equalization.sensitivity import sensitivity
from quant.graph import conv_blocks, finish
from quant.recipe import BiasCorrectionSpec, CalibrateSpec, EqualizeSpec
from quant.scaled_silu import scale_silus
from quant.tracing.trace import fuse_bn, trace
from tests.quant.networks import reference, settled, smooth_images

SPEC = EqualizeSpec(images=4)
PLAIN = CalibrateSpec(activation_range="minmax")


class Residual(nn.Module):
    """SiLU, depthwise convolution, an addition, ReLU: the kinds of channels that the encoder has."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.silu = nn.SiLU()
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.silu2 = nn.SiLU()
        self.project = nn.Conv2d(8, 8, 1)
        self.relu = nn.ReLU()
        self.head = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.silu(self.stem(x))
        return self.head(self.relu(self.project(self.silu2(self.depthwise(x))) + x))


@pytest.fixture(scope="module")
def residual(images):
    torch.manual_seed(0)
    return settled(Residual(), images)


@torch.no_grad()
def rescaled(network: nn.Module, seed: int, largest: float = 32.0):
    """The same function with factors of its free channels drawn log-uniformly from [1 / largest, largest]."""
    graph_module = scale_silus(trace(network))
    classes = channel_classes(graph_module)
    logs = torch.empty(classes.count).uniform_(-1, 1, generator=torch.Generator().manual_seed(seed))
    steps = (8 * logs * math.log2(largest)).round()  # what a ScaledSiLU can hold
    _scale_(graph_module, classes, (2 ** (steps / 8)).double().numpy())
    return finish(graph_module)


def measured(network: nn.Module, granularity: str, images: Tensor, spec: EqualizeSpec | None = SPEC) -> float:
    """SQNR in dB of plain PTQ behind equalization, if any."""
    source = network if spec is None else equalize(network, spec, images, granularity)
    prepared = calibrate(source, granularity, PLAIN, images)
    return sqnr_db(reference(network, images), reference(prepared, images))


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_rescaling_free_channels_changes_the_equalized_noise_by_less_than_1_5_db(residual, images, granularity):
    figures = [measured(residual, granularity, images)]
    for seed in range(3):
        network = rescaled(residual, seed)
        assert torch.allclose(reference(network, images), reference(residual, images), rtol=1e-3, atol=1e-4)
        assert measured(network, granularity, images, None) < figures[0] - 6, "the factors did harm"
        figures.append(measured(network, granularity, images))
    assert max(figures) - min(figures) < 1.5


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_the_least_predicted_noise_is_the_same_from_any_start(residual, images, granularity):
    noises = []
    for network in (residual, rescaled(residual, 5)):
        graph_module = scale_silus(trace(network))
        model = noise_model(graph_module, channel_classes(graph_module), images, 4, granularity)
        theta = model.solve()
        before, after = float(model.noise(torch.zeros_like(theta)).sum()), float(model.noise(theta).sum())
        assert after < before
        noises.append(after)
    assert noises[0] == pytest.approx(noises[1], rel=0.03)


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_no_small_step_from_the_solution_predicts_less_noise(residual, images, granularity):
    graph_module = scale_silus(trace(residual))
    model = noise_model(graph_module, channel_classes(graph_module), images, 4, granularity)
    theta = model.solve()
    least = float(model.noise(theta).sum())
    generator = torch.Generator().manual_seed(0)
    for size in (0.03, 0.3):
        steps = size * torch.randn(20, len(theta), generator=generator, dtype=torch.float64)
        assert min(float(model.noise(theta + step).sum()) for step in steps) > 0.995 * least


def test_predicted_noise_agrees_with_measured_noise(residual, images):
    """Within 2 dB, on the images that the prediction looked at."""
    graph_module = scale_silus(trace(residual))
    model = noise_model(graph_module, channel_classes(graph_module), images, len(images), "per_channel")
    predicted = float(model.noise(torch.zeros(model.count, dtype=torch.float64)).sum())
    output = reference(residual, images)
    error = reference(calibrate(residual, "per_channel", PLAIN, images), images) - output
    noise = float(((error - error.mean()) ** 2).sum())
    assert abs(10 * torch.log10(torch.tensor(predicted / noise))) < 2.0


def test_the_network_of_the_mission_keeps_its_function_and_loses_less(depth_network, images):
    network = fuse_bn(depth_network)
    balanced = equalize(network, EqualizeSpec(images=2), images, "per_tensor")
    fresh = smooth_images(4, 64, seed=9)
    assert torch.allclose(reference(balanced, fresh), reference(network, fresh), atol=1e-4)
    figures = []
    for item in (network, balanced):
        prepared = calibrate(item, "per_tensor", PLAIN, images)
        corrected = correct_bias(prepared, BiasCorrectionSpec(), images)  # what the model takes for granted
        figures.append(sqnr_db(reference(network, fresh), reference(corrected, fresh)))
    assert figures[1] > figures[0] + 1


def test_squared_derivatives_are_those_of_the_outputs(images):
    """For a linear network all derivatives are known: the weights behind, whatever the image."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 1, 1)).eval()
    graph_module = trace(network)
    first, last = (block.conv for block in conv_blocks(graph_module))
    derivatives = sensitivity(graph_module, [first, last], images, 3)
    size = images.shape[-1] ** 2
    expected = 3 * size * network[1].weight.detach()[0, :, 0, 0] ** 2
    assert torch.allclose(derivatives.values[first].squared, expected, rtol=1e-4)
    assert torch.allclose(derivatives.values[last].squared, torch.tensor([3.0 * size]), rtol=1e-4)
    values = reference(network[:1], images[:3])
    assert torch.allclose(derivatives.values[first].high, values.amax((0, 2, 3)), rtol=1e-4)
    assert torch.allclose(derivatives.values[first].low, values.amin((0, 2, 3)), rtol=1e-4)


def test_the_derivative_by_a_weight_leaves_out_what_a_bias_can_take(images):
    """A constant input channel: an error of its weight is a shift, and nothing else."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 1, 1)).eval()
    with torch.no_grad():
        network[0].weight[1], network[0].bias[1] = 0.0, 5.0
    before = copy.deepcopy(network.state_dict())
    graph_module = trace(network)
    derivatives = sensitivity(graph_module, [], images, 3)
    last = conv_blocks(graph_module)[1].conv
    squared = derivatives.weights[last].flatten()
    assert squared[1] < 1e-3 * squared.max()
    assert all(torch.equal(value, before[name]) for name, value in graph_module.state_dict().items())


@pytest.mark.parametrize("steps", [0.0, -24.0])
@torch.no_grad()
def test_what_silu_flattens_counts_for_no_range_whatever_its_scale(images, steps):
    """Values below -4 in front of SiLU do not change the noise that is predicted there, nor range setting."""

    def noise_and_scale(lowest: float) -> tuple[float, float]:
        conv = nn.Conv2d(3, 8, 1)
        conv.weight.zero_()
        conv.bias.copy_(torch.tensor([lowest, -4.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
        network = scale_silus(trace(nn.Sequential(conv, nn.SiLU(), nn.Conv2d(8, 1, 1)).eval()))
        nn.init.ones_(network.get_submodule("2").weight)
        classes = channel_classes(network)
        _scale_(network, classes, np.full(classes.count, 2 ** (steps / 8)))
        model = noise_model(network, classes, images, 2, "per_tensor")
        prepared = calibrate(network, "per_tensor", CalibrateSpec(), images[:2])
        return float(model.noise(torch.zeros(classes.count))[0]), float(prepared.quantizers._0.scale)

    near, far = noise_and_scale(-4.0), noise_and_scale(-40.0)
    assert far[0] == pytest.approx(near[0], rel=0.01)
    assert far[1] < 2.5 * near[1], "not 4.6 times as wide, from -40 to 6"


@pytest.mark.parametrize("per_row", [True, False])
def test_the_noise_of_a_grouped_weight_and_a_value_is_what_its_definition_says(per_row):
    """Steps from ranges, and squared derivatives behind the scales, element by element."""
    generator = torch.Generator().manual_seed(0)
    size, squared = torch.rand(2, 2, 3, 4, generator=generator, dtype=torch.float64)
    size[0, 1, 2] = 0.0  # a dead element
    up, down = torch.arange(6).reshape(2, 3), torch.tensor([[6, 7, FIXED, 0], [1, 2, 3, 8]])
    weight = QuantizedTensor(None, size, squared, up, down, 127, per_row)
    low, high, moves = torch.rand(3, 1, 4, 1, generator=generator, dtype=torch.float64)
    value = QuantizedTensor(low, high, moves, up.reshape(1, -1)[:, :4], torch.full((1, 1), FIXED), 255, False)
    theta = torch.randn(9, generator=generator, dtype=torch.float64)
    scale = torch.cat([theta, theta.new_zeros(1)]).exp()

    rows = scale[up][..., None] / scale[down][:, None]
    range_ = (size * rows).amax(-1) if per_row else (size * rows).max()
    of_weight = ((range_ / 127) ** 2 / 12 * (squared / rows**2).sum(-1)).sum()
    channels = scale[up.reshape(1, -1)[:, :4]][..., None]
    range_ = (low * channels).max() + (high * channels).max()
    of_value = (range_ / 255) ** 2 / 12 * (moves / channels**2).sum()

    noise = NoiseModel([weight, value], 9).noise(theta)
    assert torch.allclose(noise, torch.stack([of_weight, of_value]), rtol=2e-3)
    model, moved = NoiseModel([weight, value], 9), theta + torch.randn(9, generator=generator, dtype=torch.float64)
    for sharpness in (8.0, 128.0):
        assert torch.allclose(model.log_noise(moved, sharpness)(theta), model.log_noise(theta, sharpness)(theta))
