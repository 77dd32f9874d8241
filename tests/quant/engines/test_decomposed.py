"""Explicit rounding: the network that exporters write computes what its simulation does, operator by operator."""

import copy
import importlib
from collections import Counter
from types import FunctionType

import pytest
import torch
from torch import fx

from quant.engines.decomposed import DEQUANTIZE, DEQUANTIZE_CHANNELS, QUANTIZE, Int8Conv, decompose
from quant.engines.exported import arithmetic_hash
from quant.fake_quantize import FakeQuantize
from quant.graph import module_of
from quant.prepare import quant_convs, quantizers
from tests.quant.networks import activation_quantizers, noise


class SideBySide(fx.Interpreter):
    """Runs a decomposed network on the values of its prepared one: every operator gets the same inputs in both.

    Rounding is compared in levels. A whole network cannot be compared: one bit in a convolution, which another
    processor sums in another order, flips a level, and the levels behind it follow.
    """

    def __init__(self, decomposed, prepared, images):
        super().__init__(decomposed)
        self.values = {}
        recorder = fx.Interpreter(prepared)
        run_node = recorder.run_node
        recorder.run_node = lambda node: self.values.setdefault(node.name, run_node(node))
        self.quantizers = {}
        for node in prepared.graph.nodes:
            if isinstance(module_of(prepared, node), FakeQuantize):
                self.quantizers.setdefault(node.args[0].name, (node.name, module_of(prepared, node)))
        convs = [name for name, module in decomposed.named_modules() if isinstance(module, Int8Conv)]
        self.tied = {name: largest_tie(decomposed, prepared, name) for name in convs}
        self.compared = Counter()
        with torch.inference_mode():
            recorder.run(images)
            self.run(images)

    def run_node(self, node):
        found = super().run_node(node)
        if node.target is DEQUANTIZE:
            source = node.args[0].args[0].name
            name, quantizer = self.quantizers[source]
            levels, expected = (quantizer.quantize(value) for value in (found, self.values[name]))
            apart = (levels - expected).abs()
            assert apart.max() <= 1, f"{source} is rounded to another level"
            half = ((self.values[source] / quantizer.scale).abs() % 1 - 0.5).abs()
            assert (half[apart > 0] < 1e-3).all(), f"{source} differs where rounding is no tie"
            self.compared["rounding"] += 1
            return self.values[name]
        if node.name not in self.values or not isinstance(found, torch.Tensor):
            return found
        expected = self.values[node.name]
        slack = 1e-4 * float(expected.abs().max())
        if isinstance(conv := module_of(self.module, node), Int8Conv):
            slack += self.tied[str(node.target)] * float(self.env[node.args[0]].abs().max())
        assert torch.allclose(found, expected, rtol=1e-4, atol=slack), f"{conv or node.target} computes something else"
        self.compared["operator"] += 1
        return expected


def largest_tie(decomposed, prepared, name):
    """How far the weight of a convolution is from its simulation: nothing, or a level where it was half way."""
    found, conv = decomposed.get_submodule(name), quant_convs(prepared)[name]
    weight = conv.folded()[0]
    apart = conv.weight_quantizer.quantize(conv.weight_quantizer(weight)) - found.weight
    assert apart.abs().max() <= 1, f"{name} has other integers than its simulation"
    scale = conv.weight_quantizer.scale.reshape(-1, 1, 1, 1)
    half = ((weight / scale).abs() % 1 - 0.5).abs()
    assert half[apart != 0].numel() < 5, name
    assert (half[apart != 0] < 1e-3).all(), f"{name} differs where rounding is no tie"
    return float((apart.abs() * scale).flatten(1).sum(1).max())


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_explicit_rounding_computes_what_the_quantizers_do(calibrated, fresh_images, signed, granularity):
    prepared = calibrated[False, granularity]
    decomposed = decompose(prepared, signed)
    compared = SideBySide(decomposed, prepared, fresh_images).compared
    assert compared["rounding"] >= len(activation_quantizers(prepared)) > 50
    assert compared["operator"] > 100
    for name, conv in quant_convs(prepared).items():
        assert torch.equal(decomposed.get_submodule(name).weight, conv.weight_quantizer.quantize(conv.folded()[0])), (
            name
        )


def test_scaled_silus_lose_nothing_but_the_order_of_products(scaled, fresh_images):
    assert noise(decompose(scaled, False)(fresh_images), scaled(fresh_images)) < 0.01


def test_sites_that_are_off_stay_float(calibrated, fresh_images):
    prepared = copy.deepcopy(calibrated[True, "per_channel"])
    names = list(quantizers(prepared))
    for name in names[::3]:
        quantizers(prepared)[name].set_mode("off")
    compared = SideBySide(decompose(prepared, True), prepared, fresh_images).compared
    on = [name for name in activation_quantizers(prepared) if name not in names[::3]]
    assert len(on) <= compared["rounding"], "those that are on round"
    decomposed = decompose(prepared, True)
    rounded = sum(node.target is QUANTIZE for node in decomposed.graph.nodes)
    assert rounded == sum(
        isinstance(module_of(prepared, node), FakeQuantize) and module_of(prepared, node).mode != "off"
        for node in prepared.graph.nodes
    )
    convs = quant_convs(prepared)
    integers = {name for name in convs if isinstance(decomposed.get_submodule(name), Int8Conv)}
    assert integers == {name for name in convs if f"{name}.weight_quantizer" not in names[::3]} != set(convs)


def test_the_hash_of_the_arithmetic_knows_integers_and_scales_but_no_names(calibrated):
    one, other = (decompose(calibrated[True, g], False) for g in ("per_channel", "per_tensor"))
    assert arithmetic_hash(one) == arithmetic_hash(decompose(calibrated[True, "per_channel"], False))
    assert arithmetic_hash(one) != arithmetic_hash(other)
    assert arithmetic_hash(one) != arithmetic_hash(decompose(calibrated[True, "per_channel"], True))


def test_the_hash_of_the_arithmetic_is_that_of_another_process(calibrated):
    """There the same functions lie at other addresses."""
    one = decompose(calibrated[True, "per_channel"], False)
    before, moved = arithmetic_hash(one), 0
    for node in one.graph.nodes:
        if isinstance(node.target, FunctionType):
            node.target = FunctionType(node.target.__code__, {}, node.target.__name__)
            moved += 1
    assert moved, "the test must be able to see it"
    assert arithmetic_hash(one) == before


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
def test_our_roundings_are_those_of_torch_ao(per_channel, dtype):
    importlib.import_module("torch.ao.quantization.fx._decomposed")  # which makes them known
    theirs, limits = torch.ops.quantized_decomposed, (torch.iinfo(dtype).min, torch.iinfo(dtype).max, dtype)
    values = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 3
    scale, zero_point = 0.0173, limits[0] + 101
    levels = QUANTIZE(values, scale, zero_point, *limits)
    assert torch.equal(levels, theirs.quantize_per_tensor(values, scale, zero_point, *limits))
    assert levels.unique().numel() > 200
    if per_channel:
        of_channels = torch.rand(8) + 0.01, torch.full((8,), zero_point), 0, *limits
        found, expected = DEQUANTIZE_CHANNELS(levels, *of_channels), theirs.dequantize_per_channel(levels, *of_channels)
    else:
        found = DEQUANTIZE(levels, scale, zero_point, *limits)
        expected = theirs.dequantize_per_tensor(levels, scale, zero_point, *limits)
    assert torch.equal(found, expected)
