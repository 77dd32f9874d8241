"""What a training says about itself: weights that it changed, steps in which BatchNorm learned, and its averages."""

import copy
from dataclasses import replace

import pytest
import torch

from quant.prepare import quant_convs
from quant.qat import finetune as qat
from quant.qat.averaging import Averaged
from quant.qat.finetune import prepare_for_qat
from quant.qat.integers import changed, integer_weights
from quant.recipe import CalibrateSpec, QatSpec
from quant.tracing.trace import fuse_bn
from tests.quant.networks import same_tensors
from tests.quant.qat.training import CALIBRATE, SPEC, train, warm


def start_of(start, network, pack):
    return warm(network, pack) if start == "calibrated" else prepare_for_qat(network, "per_channel", CALIBRATE)


@pytest.mark.parametrize("start", ["cold", "calibrated"])
def test_the_share_of_changed_weights_is_counted_from_the_start(source, network, pack, start):
    prepared = start_of(start, source, pack)
    before = integer_weights(copy.deepcopy(prepared))
    trained = train(prepared, pack, network)
    after = integer_weights(prepared)
    assert trained.best_epoch > 0
    different = sum(int((before[name] != after[name]).sum()) for name in before)
    assert trained.weights_changed == pytest.approx(different / sum(one.numel() for one in before.values()), abs=2e-3)
    assert trained.weights_changed > 0.1


def test_no_weight_is_changed_where_the_start_is_the_best(network, pack, monkeypatch):
    scores = iter([0.9, 0.5, 0.5, 0.5])
    monkeypatch.setattr(qat, "validate", lambda *_: {"ssim": next(scores)})
    trained = train(warm(network, pack), pack, network)
    assert (trained.best_epoch, trained.weights_changed, trained.bn_live_steps) == (0, 0.0, 0)


def test_a_travel_of_nothing_changes_nothing_and_twice_the_travel_changes_more(network, pack):
    source, shares = fuse_bn(network), []
    for travel in (0.0, 0.5, 4.0):
        prepared = warm(source, pack)
        before = integer_weights(prepared)
        train(prepared, pack, network, replace(SPEC, travel=travel))
        after = integer_weights(prepared)
        shares.append(changed(before, after))
        largest = max(int((before[name] - after[name]).abs().max()) for name in before)
        assert largest <= round(travel) + 1, "no weight goes further than its travel, rounded"
    assert shares[0] == 0.0
    assert shares[0] < shares[1] < shares[2]


@pytest.mark.parametrize("start", ["cold", "calibrated"])
@pytest.mark.parametrize(("freeze_bn_after", "share"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
def test_batchnorm_learns_for_the_first_part_of_the_steps(network, pack, monkeypatch, start, freeze_bn_after, share):
    scores = iter([0.1, 0.2, 0.3, 0.4, 0.5])
    monkeypatch.setattr(qat, "validate", lambda *_: {"ssim": next(scores)})
    spec = QatSpec(epochs=4, batch_size=4, freeze_bn_after=freeze_bn_after)
    trained = train(start_of(start, network, pack), pack, network, spec)
    assert trained.bn_live_steps == share * 16
    assert trained.asserted["bn_live"] == (3 if share else 0)


def test_a_folded_network_has_no_statistics_to_learn(network, pack):
    assert train(warm(fuse_bn(network), pack), pack, network).bn_live_steps == 0


def test_integers_leave_out_what_is_kept_in_float(network):
    prepared = prepare_for_qat(network, "per_channel", CalibrateSpec(weight_range="mse"))
    quant_convs(prepared)["head"].weight_quantizer.set_mode("off")
    assert integer_weights(prepared).keys() == quant_convs(prepared).keys() - {"head"}


def test_an_average_is_the_plain_mean_until_the_window_is_full(network, pack):
    prepared = warm(network, pack)
    averaged, seen = Averaged(prepared, 3.0), []
    head = prepared.get_submodule("head").conv
    for level in (1.0, 4.0, 7.0, 10.0):
        with torch.no_grad():
            head.bias.fill_(level)
        averaged.update_()
        seen.append(float(averaged.network.get_submodule("head").conv.bias[0]))
    assert seen == pytest.approx([1.0, 2.5, 4.0, 6.0])
    assert float(head.bias) == 10.0


def test_an_average_of_equal_networks_is_that_network(source, pack):
    prepared = warm(source, pack)
    averaged = Averaged(prepared, 5.0)
    for _ in range(4):
        averaged.update_()
    assert same_tensors(averaged.sync_().state_dict(), prepared.state_dict())
