"""What every step keeps on every network of the zoo: one contract for all of ``quant/``."""

import copy
from functools import cache

import pytest
import torch
from torch import Tensor, fx, nn

from model.noise import sqnr_db
from quant.bias_correction import correct_bias
from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.equalization.equalize import equalize
from quant.graph import conv_blocks
from quant.prepare import prepare, quant_convs
from quant.recipe import BiasCorrectionSpec, CalibrateSpec, EqualizeSpec, RoundingSpec
from quant.tracing.same_function import tensors
from quant.tracing.trace import fuse_bn, trace
from quant.weight_rounding.rounding import round_weights_optq
from tests.quant.networks import settled, smooth_images
from tests.quant.tracing import zoo_convolutions, zoo_python, zoo_tokens

PARTS = ("StandardizedConv", "Neck", "BrightOrDark")
REFUSED = ("BranchOnValues", "OtherwiseByBatch")
KINDS = {
    kind.__name__: kind
    for file in (zoo_convolutions, zoo_tokens, zoo_python)
    for kind in vars(file).values()
    if isinstance(kind, type) and issubclass(kind, nn.Module) and kind.__module__ == file.__name__
}
ZOO = tuple(name for name in KINDS if name not in (*PARTS, *REFUSED))
IMAGES = smooth_images(8, 16)
CALIBRATE = CalibrateSpec(activation_range="minmax")


@cache
def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    built = settled(KINDS[name](), IMAGES)
    with torch.no_grad():
        for module in built.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
    return built


@cache
def traced(name: str) -> fx.GraphModule:
    return trace(network(name), IMAGES[:1])


@cache
def calibrated(name: str, fused: bool) -> fx.GraphModule:
    form = fuse_bn(network(name), IMAGES[:1]) if fused else traced(name)
    return calibrate(form, "per_channel", CALIBRATE, IMAGES)


@torch.no_grad()
def outputs(module: nn.Module, images: Tensor = IMAGES) -> list[Tensor]:
    return tensors(copy.deepcopy(module).eval()(images.clone()))


def assert_same(given: list[Tensor], expected: list[Tensor], tolerance: float = 1e-4) -> None:
    assert [value.shape for value in given] == [value.shape for value in expected]
    for ours, theirs in zip(given, expected, strict=True):
        assert float((ours - theirs).abs().max()) <= tolerance * float(theirs.abs().max())


def least_db(given: list[Tensor], expected: list[Tensor]) -> float:
    return min(sqnr_db(theirs, ours) for ours, theirs in zip(given, expected, strict=True))


every_network = pytest.mark.parametrize("name", ZOO)


@every_network
def test_trace(name):
    assert_same(outputs(traced(name)), outputs(network(name)))


@every_network
@pytest.mark.parametrize("count", [1, 5])
def test_any_number_of_images(name, count):
    images = smooth_images(count, 16, seed=3)
    assert_same(outputs(traced(name), images), outputs(network(name), images))


@every_network
def test_no_convolution_is_called_twice_and_none_is_a_function(name):
    convs = {str(block.conv.target) for block in conv_blocks(traced(name))}
    layers = (nn.Conv1d, nn.Conv2d, nn.Linear, nn.ConvTranspose2d)
    kept = {key for key, module in network(name).named_modules() if isinstance(module, layers)}
    found = {key for key, module in traced(name).named_modules() if isinstance(module, layers)}
    assert kept <= found, "names are those of the network"
    assert not any(isinstance(module, nn.Linear | nn.Conv1d) for module in traced(name).modules())
    assert convs
    functions = " ".join(str(node.target) for node in traced(name).graph.nodes if node.op == "call_function")
    assert "conv" not in functions or name == "KernelsOfThePicture"


@every_network
def test_fuse_bn(name):
    assert_same(outputs(fuse_bn(network(name), IMAGES[:1])), outputs(network(name)))


@every_network
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_prepare_with_quantizers_off(name, granularity):
    assert_same(outputs(prepare(traced(name), granularity)), outputs(network(name)))


@every_network
@pytest.mark.parametrize("fused", [False, True], ids=["live", "fused"])
def test_calibrate(name, fused):
    assert least_db(outputs(calibrated(name, fused)), outputs(network(name))) > 20


@every_network
@pytest.mark.parametrize("fused", [False, True], ids=["live", "fused"])
def test_equalize(name, fused):
    form = fuse_bn(network(name), IMAGES[:1]) if fused else traced(name)
    equalized = equalize(form, EqualizeSpec(images=4), IMAGES, "per_tensor")
    assert_same(outputs(equalized), outputs(network(name)), 1e-3)


@every_network
def test_round(name):
    rounded, layers, _ = round_weights_optq(calibrated(name, True), RoundingSpec(images=4), IMAGES, seed=0)
    assert {layer.name for layer in layers} <= set(quant_convs(rounded))
    assert least_db(outputs(rounded), outputs(network(name))) > 20


@every_network
def test_correct_bias(name):
    corrected = correct_bias(calibrated(name, True), BiasCorrectionSpec(images=4), IMAGES)
    assert least_db(outputs(corrected), outputs(network(name))) > 20


@every_network
@pytest.mark.parametrize("fused", [False, True], ids=["live", "fused"])
def test_convert(name, fused):
    prepared = calibrated(name, fused)
    int8 = qnnpack.convert(prepared)
    each = [tensors(int8(image)) for image in IMAGES.split(1)]
    shipped = [torch.cat(values) for values in zip(*each, strict=True)]
    assert least_db(shipped, outputs(prepared)) > 20


@every_network
def test_training(name):
    """Every weight gets a gradient; a bias in front of a live BatchNorm has none."""
    prepared = copy.deepcopy(calibrated(name, False)).train()
    sum(value.float().pow(2).mean() for value in tensors(prepared(IMAGES.clone()))).backward()
    parameters = prepared.named_parameters()
    without = [key for key, value in parameters if value.grad is None and not key.endswith("conv.bias")]
    assert without == []
