"""Weights of 2 to 8 bits: coarser grids of the same int8 arithmetic."""

import itertools
import math

import pytest
import torch
from torch.ao.nn.quantized import Conv2d

from model.errors import InputError
from quant.analysis.weight_widths import choose_widths, widen_worst
from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.engines.catalog import TORCH
from quant.engines.packed_weights import pack, unpack
from quant.equalization.channel_classes import channel_classes
from quant.equalization.equalize import noise_model
from quant.fake_quantize import FakeQuantize
from quant.prepare import prepare, quant_convs, quantizers
from quant.qat.finetune import prepare_for_qat
from quant.recipe import CalibrateSpec, RoundingSpec
from quant.tracing.trace import fuse_bn, trace
from quant.weight_rounding.rounding import round_weights_optq
from tests.quant.networks import noise, reference

MINMAX = CalibrateSpec(activation_range="minmax")
GRANULARITIES = ["per_channel", "per_tensor"]
ENGINES = [engine for engine in TORCH if engine in torch.backends.quantized.supported_engines]


@pytest.mark.parametrize(("bits", "largest"), [(8, 127), (4, 7), (3, 3), (2, 1)])
def test_weights_of_few_bits_are_symmetric_integers_that_reach_both_ends_of_their_range(bits, largest):
    quantizer = FakeQuantize(weight=True, bits=bits)
    weight = torch.linspace(-0.7, 0.7, 500).reshape(1, 1, 4, -1)  # none halfway between two levels
    quantizer.set_range_from_weight(weight, "minmax")
    assert quantizer.quantize(weight).unique().tolist() == list(range(-largest, largest + 1))
    quantizer.set_mode("freeze")
    assert torch.allclose(quantizer(weight), quantizer.quantize(weight) * quantizer.scale)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_every_convolution_has_the_width_that_is_named_and_eight_bits_where_none_is(all_kinds, fused, granularity):
    network = fuse_bn(all_kinds) if fused else all_kinds
    for prepared in (
        prepare(network, granularity, {"stem": 2, "gate.expand": 5}),
        prepare_for_qat(network, granularity, MINMAX, {"stem": 2, "gate.expand": 5}),
    ):
        found = {name: conv.weight_quantizer.bits for name, conv in quant_convs(prepared).items()}
        assert {name: bits for name, bits in found.items() if bits != 8} == {"stem": 2, "gate.expand": 5}
        activations = [quantizer for quantizer in quantizers(prepared).values() if not quantizer.weight]
        assert {(quantizer.quant_min, quantizer.quant_max) for quantizer in activations} == {(0, 255)}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("bits", [4, 2])
def test_an_engine_gets_the_integers_of_the_quantizer_and_no_others(all_kinds, images, engine, granularity, bits):
    widths = choose_widths(all_kinds, bits, first_last=True)
    prepared = calibrate(all_kinds, granularity, MINMAX, images, weight_bits=widths)
    converted = qnnpack.convert(prepared, engine)
    int8 = {name: module for name, module in converted.named_modules() if isinstance(module, Conv2d)}
    qnnpack.use_engine_()
    assert int8.keys() == quant_convs(prepared).keys()
    for name, conv in quant_convs(prepared).items():
        integers = int8[name].weight().int_repr().int()
        assert torch.equal(integers, conv.weight_quantizer.quantize(conv.folded()[0]))
        assert int(integers.abs().max()) == 2 ** (widths[name] - 1) - 1


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_the_engine_computes_what_the_simulation_of_few_bits_says(all_kinds, images, fresh_images, granularity):
    widths = choose_widths(all_kinds, 4, first_last=False)
    prepared = calibrate(all_kinds, granularity, MINMAX, images, weight_bits=widths)
    simulated, exact = reference(prepared, fresh_images), reference(all_kinds, fresh_images)
    converted = qnnpack.convert(prepared)(fresh_images)
    assert noise(converted, simulated) < 0.1 * noise(simulated, exact)


def test_fewer_bits_make_more_noise(all_kinds, images):
    exact = reference(all_kinds, images)
    found = []
    for bits in (8, 6, 4, 2):
        widths = choose_widths(all_kinds, bits, first_last=False)
        prepared = calibrate(all_kinds, "per_channel", MINMAX, images, weight_bits=widths)
        found.append(noise(reference(prepared, images), exact))
    assert all(1.2 * wide < narrow for wide, narrow in itertools.pairwise(found)), found


def test_rounding_stays_on_the_narrow_grid_and_helps_there(all_kinds, images):
    widths = choose_widths(all_kinds, 3, first_last=False)
    prepared = calibrate(fuse_bn(all_kinds), "per_channel", MINMAX, images, weight_bits=widths)
    rounded, layers, _ = round_weights_optq(prepared, RoundingSpec(), images, seed=0)
    for conv in quant_convs(rounded).values():
        weight = conv.folded()[0].detach()
        assert torch.allclose(weight, conv.weight_quantizer(weight), atol=1e-6 * float(weight.abs().max()))
    assert sum(layer.error_after for layer in layers) < 0.7 * sum(layer.error_before for layer in layers)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_the_noise_model_counts_the_levels_of_each_layers_weights(all_kinds, images, granularity):
    network = trace(fuse_bn(all_kinds))
    classes = channel_classes(network)
    noises = [
        noise_model(network, classes, images, 2, granularity, widths).noise(torch.zeros(classes.count).double())
        for widths in ({}, {"gate.expand": 4})
    ]
    ratio = noises[1] / noises[0]
    (changed,) = (ratio != 1).nonzero().flatten().tolist()
    assert float(ratio[changed]) == pytest.approx((127 / 7) ** 2)


def test_the_first_and_the_last_layer_keep_eight_bits_where_that_is_wanted(all_kinds):
    widths = choose_widths(all_kinds, 4, first_last=True)
    assert {name for name, bits in widths.items() if bits == 8} == {"stem", "head"}
    assert set(choose_widths(all_kinds, 4, first_last=False).values()) == {4}
    assert next(iter(widths)) == "stem"
    assert len(widths) == len(quant_convs(prepare(all_kinds, "per_channel")))


def test_the_layers_whose_weights_alone_make_the_most_noise_are_widened(all_kinds, images):
    narrow = choose_widths(all_kinds, 3, first_last=True)
    exact = reference(all_kinds, images)
    alone = {}
    for name in (name for name, bits in narrow.items() if bits == 3):
        prepared = prepare(all_kinds, "per_tensor", {name: 3}).eval()
        quantizer = quant_convs(prepared)[name].weight_quantizer
        quantizer.set_range_from_weight(quant_convs(prepared)[name].folded()[0], "mse")
        quantizer.set_mode("freeze")
        alone[name] = noise(reference(prepared, images), exact)
    worst = sorted(alone, key=lambda name: -alone[name])[:2]
    assert widen_worst(all_kinds, narrow, 2, "per_tensor", images) == {**narrow, **dict.fromkeys(worst, 8)}
    with pytest.raises(InputError, match=r"keep_8bit\.worst: 100 is out of range; expected at most 6 layers"):
        widen_worst(all_kinds, narrow, 100, "per_tensor", images)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("count", [1, 7, 64])
def test_packed_integers_come_back_and_take_as_many_bits_as_they_have(bits, count):
    largest = 2 ** (bits - 1) - 1
    integers = torch.randint(-largest, largest + 1, (count,), generator=torch.Generator().manual_seed(count))
    integers[0], integers[-1] = largest, -largest
    packed = pack(integers.to(torch.int8), bits)
    assert packed.shape == (math.ceil(count * bits / 8),)
    assert torch.equal(unpack(packed, bits, integers.shape), integers.to(torch.int8))
    with pytest.raises(ValueError, match="bytes of type"):
        unpack(packed, bits, torch.Size([count + 8]))
