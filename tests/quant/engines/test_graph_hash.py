"""The hash of an int8 network: equal for equal arithmetic, another for any other number."""

import copy

import pytest
import torch
from torch import nn

from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.prepare import prepare, quant_convs, quantizers
from quant.recipe import GRANULARITIES, CalibrateSpec
from tests.quant.networks import (
    freeze_at_unit_ranges_,
)

MINMAX = CalibrateSpec(activation_range="minmax")

# -- the hash


def test_live_and_folded_batchnorm_give_one_int8_network_by_ptq(int8):
    for granularity in GRANULARITIES:
        assert qnnpack.graph_hash(int8[False, granularity]) == qnnpack.graph_hash(int8[True, granularity])


def test_granularities_are_different_networks(int8):
    assert qnnpack.graph_hash(int8[True, "per_channel"]) != qnnpack.graph_hash(int8[True, "per_tensor"])


def test_the_hash_does_not_know_names(kinds, all_kinds, images):
    prepared = calibrate(nn.Sequential(all_kinds), "per_channel", MINMAX, images)
    assert not quant_convs(prepared).keys() & quant_convs(kinds).keys()
    assert qnnpack.graph_hash(qnnpack.convert(prepared)) == qnnpack.graph_hash(qnnpack.convert(kinds))


def test_the_hash_survives_saving_and_copying(kinds):
    int8 = qnnpack.convert(kinds)
    assert qnnpack.graph_hash(copy.deepcopy(int8)) == qnnpack.graph_hash(int8)


@torch.no_grad()
def _one_activation_scale(prepared):
    quantizers(prepared)["quantizers.silu"].scale.mul_(1 + 1e-5)


@torch.no_grad()
def _one_zero_point(prepared):
    quantizers(prepared)["quantizers.add"].zero_point.add_(1)


@torch.no_grad()
def _one_conv_scale(prepared):
    quantizers(prepared)["quantizers.head"].scale.mul_(1 + 1e-5)


@torch.no_grad()
def _one_weight_scale(prepared):
    quant_convs(prepared)["project"].weight_quantizer.scale[3].mul_(1 + 1e-5)


@torch.no_grad()
def _one_weight(prepared):
    conv = quant_convs(prepared)["one"]
    conv.conv.weight[2, 3, 1, 1] -= conv.weight_quantizer.scale[2] * conv.conv.weight[2, 3, 1, 1].sign()


@torch.no_grad()
def _one_bias(prepared):
    quant_convs(prepared)["one"].conv.bias[5] += 1e-6


@pytest.mark.parametrize(
    "change", [_one_activation_scale, _one_zero_point, _one_conv_scale, _one_weight_scale, _one_weight, _one_bias]
)
def test_a_small_change_of_one_number_is_another_network(kinds, fresh_kinds, change):
    change(fresh_kinds)
    assert qnnpack.graph_hash(qnnpack.convert(fresh_kinds)) != qnnpack.graph_hash(qnnpack.convert(kinds))


def test_a_change_in_the_middle_of_a_long_bias_is_another_network(images):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 1200, 1), nn.ReLU()).eval()
    prepared = calibrate(network, "per_tensor", MINMAX, images[:1, :, :8, :8])
    before = qnnpack.graph_hash(qnnpack.convert(prepared))
    with torch.no_grad():
        quant_convs(prepared)["0"].conv.bias[600] += 0.1
    assert qnnpack.graph_hash(qnnpack.convert(prepared)) != before


OTHER_OPTIONS = {
    "dilation": ({"padding": 1}, {"padding": 2, "dilation": 2}),
    "padding": ({"padding": 1}, {"padding": 0}),
    "stride": ({"stride": 1}, {"stride": 2}),
}


@pytest.mark.parametrize("options", OTHER_OPTIONS.values(), ids=OTHER_OPTIONS)
def test_other_options_of_a_convolution_are_another_network(options):
    hashes = set()
    for chosen in options:
        torch.manual_seed(0)
        prepared = prepare(nn.Sequential(nn.Conv2d(3, 4, 3, **chosen)).eval(), "per_tensor")
        freeze_at_unit_ranges_(prepared)
        hashes.add(qnnpack.graph_hash(qnnpack.convert(prepared)))
    assert len(hashes) == 2


def test_other_options_of_a_pool_are_another_network():
    hashes = set()
    for pool in (nn.AvgPool2d(3, 1, 1), nn.AvgPool2d(5, 1, 2), nn.MaxPool2d(3, 1, 1), nn.MaxPool2d(5, 1, 2)):
        torch.manual_seed(0)
        prepared = prepare(nn.Sequential(nn.Conv2d(3, 4, 3), pool).eval(), "per_tensor")
        freeze_at_unit_ranges_(prepared)
        hashes.add(qnnpack.graph_hash(qnnpack.convert(prepared)))
    assert len(hashes) == 4


def test_a_weight_of_an_operator_that_stays_float_counts_too(fresh_kinds):
    quant_convs(fresh_kinds)["one"].weight_quantizer.set_mode("off")
    before = qnnpack.graph_hash(qnnpack.convert(fresh_kinds))
    with torch.no_grad():
        quant_convs(fresh_kinds)["one"].conv.weight[0, 0, 0, 0] += 0.5
    assert qnnpack.graph_hash(qnnpack.convert(fresh_kinds)) != before
