"""BatchNorm that learns in a quantized network: where its statistics start, and the grids that go along."""

import copy

import pytest
import torch

from quant.calibrate import calibrate
from quant.prepare import quant_convs
from quant.qat.bn_statistics import MovingGrids, Statistics, live_convs, restart_statistics_
from quant.qat.integers import changed, integer_weights
from quant.recipe import CalibrateSpec
from tests.quant.networks import noise, reference

SPEC = CalibrateSpec(activation_range="minmax")


@pytest.fixture
def prepared(all_kinds, images):
    """Calibrated, with BatchNorm live, in whose statistics a training with frozen ones has left its marks."""
    network = copy.deepcopy(all_kinds)
    with torch.no_grad():
        for norm in (network.stem_bn, network.depthwise_bn, network.project_bn):
            shift = torch.linspace(-0.5, 0.5, len(norm.weight))
            norm.running_mean += shift
            norm.bias += shift * norm.weight / torch.sqrt(norm.running_var + norm.eps)
            norm.running_var *= 4.0
            norm.weight *= 2.0
    return calibrate(network, "per_channel", SPEC, images)


def batch_moments(prepared, images):
    """By convolution: mean and variance of what BatchNorm gives, in units of its own factor and shift."""
    moments = {}
    for name, conv in live_convs(prepared).items():
        outputs = []
        linear = conv.linear
        conv.linear = lambda *given, outputs=outputs, linear=linear: outputs.append(linear(*given)) or outputs[-1]
        with torch.no_grad():
            copy_of = prepared.eval()(images)
        assert len(copy_of)
        del conv.linear
        y = (outputs[0] - conv.bn.bias.reshape(1, -1, 1, 1)) / conv.bn.weight.reshape(1, -1, 1, 1)
        moments[name] = (y.mean((0, 2, 3)), y.var((0, 2, 3), correction=0))
    return moments


def test_restarted_statistics_are_those_of_the_data_and_the_function_stays(prepared, images):
    before, integers = reference(prepared, images), integer_weights(prepared)
    assert max(float(mean.abs().max()) for mean, _ in batch_moments(prepared, images).values()) > 0.2
    restart_statistics_(prepared.eval(), images.split(4))
    assert noise(reference(prepared, images), before) < 1e-3
    assert changed(integers, integer_weights(prepared)) < 1e-3
    for mean, var in batch_moments(prepared, images).values():
        assert mean.abs().max() < 1e-3
        assert (var - 1.0).abs().max() < 1e-2


def test_batches_then_move_restarted_statistics_little_and_others_much(prepared, images):
    moved = {}
    for restarted in (False, True):
        network = copy.deepcopy(prepared).eval()
        if restarted:
            restart_statistics_(network, images.split(4))
        before = reference(network, images)
        for conv in live_convs(network).values():
            conv.bn.momentum = 0.5
        network.train()
        with torch.no_grad():
            for _ in range(5):
                network(images)
        moved[restarted] = noise(reference(network, images), before)
    assert moved[True] < 0.02
    assert moved[False] > 10 * moved[True]


def test_frozen_and_folded_statistics_are_not_restarted(prepared, images):
    for conv in quant_convs(prepared).values():
        conv.freeze_bn_()
    before = {name: value.clone() for name, value in prepared.state_dict().items()}
    restart_statistics_(prepared.eval(), images.split(4))
    assert all(torch.equal(value, before[name]) for name, value in prepared.state_dict().items())


def test_a_channel_that_is_dead_stays_as_it_is(all_kinds, images):
    network = copy.deepcopy(all_kinds)
    with torch.no_grad():
        network.stem_bn.weight[3] = 0.0
    prepared = calibrate(network, "per_channel", SPEC, images)
    before = reference(prepared, images)
    restart_statistics_(prepared.eval(), images.split(4))
    bn = prepared.get_submodule("stem").bn
    assert bn.weight[3] == 0.0
    assert torch.equal(bn.running_var[3], network.stem_bn.running_var[3])
    assert noise(reference(prepared, images), before) < 1e-3


@pytest.mark.parametrize(("granularity", "stay"), [("per_channel", True), ("per_tensor", False)])
@pytest.mark.parametrize("mode", ["freeze", "learn"])
def test_grids_with_a_scale_a_channel_follow_the_factors_of_batchnorm(all_kinds, images, granularity, stay, mode):
    prepared = calibrate(all_kinds, granularity, SPEC, images)
    for conv in quant_convs(prepared).values():
        conv.weight_quantizer.set_mode(mode)
    grids, before = MovingGrids(prepared), integer_weights(prepared)
    with torch.no_grad():
        for conv in live_convs(prepared).values():
            conv.bn.weight *= torch.linspace(0.8, 1.2, len(conv.bn.weight))
            conv.bn.running_var *= 1.1
    grids.follow_()
    for conv in quant_convs(prepared).values():
        conv.weight_quantizer.set_mode("freeze")
    share = changed(before, integer_weights(prepared))
    assert share < 1e-3 if stay else share > 0.1


def test_steps_count_while_statistics_move(all_kinds, images):
    prepared = calibrate(all_kinds, "per_channel", SPEC, images).train()
    statistics = Statistics(prepared)
    with torch.no_grad():
        for step in range(5):
            if step == 3:
                for conv in quant_convs(prepared).values():
                    conv.freeze_bn_()
            prepared(images[:4])
            statistics.count_()
    assert statistics.moved == 3
