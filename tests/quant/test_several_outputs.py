"""A network with several outputs, in a tuple or a dict, goes the whole way to int8 and keeps them apart."""

import pytest
import torch
from torch import Tensor, nn

from model.noise import comparable, nested_noise, noise_mse, sqnr_db
from model.tasks.nested import leaves
from quant.analysis.site_errors import analyze
from quant.bias_correction import correct_bias
from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.equalization.equalize import equalize
from quant.recipe import BiasCorrectionSpec, CalibrateSpec, EqualizeSpec, RoundingSpec
from quant.tracing.trace import fuse_bn
from quant.weight_rounding.rounding import round_weights_optq


class TwoHeads(nn.Module):
    """Heat maps, and one number for each of them."""

    def __init__(self, named: bool) -> None:
        super().__init__()
        self.named = named
        self.features = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU6())
        self.deeper = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.BatchNorm2d(16), nn.ReLU6())
        self.heat, self.pool, self.linear = nn.Conv2d(16, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Linear(16, 3)

    def forward(self, images: Tensor) -> object:
        features = self.deeper(self.features(images))
        heat, there = self.heat(features), self.linear(self.pool(features).flatten(1))
        return {"heat": heat, "there": there} if self.named else (heat, there)


@pytest.mark.parametrize("named", [False, True], ids=["tuple", "dict"])
def test_every_step_of_a_recipe_keeps_the_structure_and_the_outputs(named):
    torch.manual_seed(0)
    network, images = TwoHeads(named).eval(), torch.randn(16, 3, 32, 32)
    with torch.no_grad():
        exact = network(images)
    equalized = equalize(fuse_bn(network, images[:1]), EqualizeSpec(), images, "per_channel")
    prepared = calibrate(equalized, "per_channel", CalibrateSpec(), images)
    rounded = round_weights_optq(prepared, RoundingSpec(), images, seed=0)[0]
    corrected = correct_bias(prepared, BiasCorrectionSpec(), images)
    for form in (prepared, rounded, corrected, qnnpack.convert(rounded)):
        with torch.no_grad():
            found = form(images[:1])
        assert type(found) is type(exact) or isinstance(found, dict)
        assert leaves(found).keys() == leaves(exact).keys()
        for name, output in leaves(found).items():
            assert sqnr_db(leaves(exact)[name][:1], output) > 25, name
    errors = analyze(rounded, images[:2])
    assert {"heat", "linear"} <= {error.name.split(".")[0] for error in errors}
    assert all(error.isolated_sqnr_db > 20 for error in errors)
    assert min(error.isolated_sqnr_db for error in errors) < 80, "activations are rounded"


def test_each_output_counts_the_same_however_large_its_numbers_and_however_many_there_are():
    torch.manual_seed(0)
    reference = {"many": torch.randn(4, 1000), "few": 100 * torch.randn(4, 3)}
    deviations = {name: output.std(correction=0) for name, output in reference.items()}
    one, other = ({**reference, name: reference[name] + 0.1 * deviations[name]} for name in reference)
    first, second = (sqnr_db(*comparable(reference, moved)) for moved in (one, other))
    assert first == pytest.approx(second, abs=0.01)
    noise, variance = nested_noise(reference, one)
    assert variance == 1.0
    assert float(noise.mean()) == pytest.approx(0.01 / 2, rel=0.01)


def test_the_noise_of_a_lone_output_is_in_its_own_units():
    reference = torch.randn(4, 3)
    noise, variance = nested_noise(reference, reference + 0.5)
    assert torch.allclose(noise, noise_mse(reference, reference + 0.5))
    assert variance == pytest.approx(float(reference.double().var(correction=0)))
