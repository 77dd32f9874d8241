"""What each phase demands of quantizers, BatchNorm and dropout, and how it says what is wrong."""

import copy

import pytest
import torch
from torch import nn

from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.fake_quantize import MODES
from quant.prepare import prepare, quant_convs, quantizers
from quant.qat.finetune import prepare_for_qat
from quant.recipe import CalibrateSpec
from quant.state import PHASES, QuantizerStateError, quantizer_state, require_state
from tests.quant.networks import ReluPair, activation_quantizers

SPEC = CalibrateSpec(activation_range="minmax")
ALLOWED = {"calibrate": {"calibrate"}, "finetune": {"moving_average", "freeze", "learn"}, "evaluate": {"freeze", "off"}}


def in_mode(network: nn.Module, mode: str, training: bool) -> nn.Module:
    prepared = prepare(network, "per_channel").train(training)
    for quantizer in quantizers(prepared).values():
        quantizer.set_mode(mode)
    return prepared


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("training", [False, True])
def test_each_phase_takes_its_modes_and_no_others(relu_pair, phase, mode, training):
    prepared = in_mode(relu_pair, mode, training)
    if mode in ALLOWED[phase] and training == (phase == "finetune"):
        assert require_state(prepared, phase) == quantizer_state(prepared)
    else:
        with pytest.raises(QuantizerStateError, match=f"{phase} cannot start"):
            require_state(prepared, phase)


def test_the_message_names_the_first_offenders_their_state_and_how_many_more(relu_pair):
    prepared = in_mode(relu_pair, "off", training=True)
    names = list(quantizers(prepared))
    with pytest.raises(QuantizerStateError) as caught:
        require_state(prepared, "finetune")
    message = str(caught.value)
    assert [f"{name} is off" in message for name in names[:4]] == [True, True, True, False]
    assert f"and {len(names) - 3} more" in message
    assert "moving_average or freeze" in message


def test_one_wrong_quantizer_among_many_is_found_and_named(all_kinds, images):
    prepared = calibrate(all_kinds, "per_channel", SPEC, images)
    activation_quantizers(prepared)["quantizers.silu"].set_mode("moving_average")
    with pytest.raises(QuantizerStateError, match=r"quantizers\.silu is moving_average\. Expected") as caught:
        require_state(prepared, "evaluate")
    assert "more" not in str(caught.value)


def test_the_wrong_mode_of_the_network_is_named(relu_pair, images):
    prepared = calibrate(relu_pair, "per_channel", SPEC, images)
    with pytest.raises(QuantizerStateError, match="the network is in eval mode"):
        require_state(prepared, "finetune")
    with pytest.raises(QuantizerStateError, match="the network is in train mode"):
        require_state(prepared.train(), "evaluate")


def test_a_network_without_quantizers_cannot_be_finetuned_but_evaluated(relu_pair):
    with pytest.raises(QuantizerStateError, match="no quantizers"):
        require_state(copy.deepcopy(relu_pair).train(), "finetune")
    assert require_state(relu_pair, "evaluate")["bn_live"] == 0


@pytest.mark.parametrize("phase", ["calibrate", "evaluate"])
def test_live_batch_statistics_and_dropout_are_named(images, phase):
    network = nn.Sequential(ReluPair(), nn.Dropout(0.1)).eval()
    network[0].bn.train()
    with pytest.raises(QuantizerStateError, match="1 BatchNorm layers use batch statistics"):
        require_state(network, phase)
    network[0].bn.eval()
    network[1].train()
    with pytest.raises(QuantizerStateError, match="1 dropout layers are live"):
        require_state(network, phase)
    network[1].p = 0.0
    require_state(network, phase)


def test_counts_are_those_of_the_network(all_kinds, images):
    prepared = prepare_for_qat(all_kinds, "per_tensor", SPEC).train()
    state = quantizer_state(prepared)
    activations = activation_quantizers(prepared)
    assert state["activation_follow"] == len(activations) - 1
    assert state["activation_freeze"] == 1, "the sigmoid's is fixed"
    assert state["weight_follow"] == len(quant_convs(prepared))
    assert (state["training"], state["bn_live"], state["bn_frozen"]) == (True, 3, 0)
    quant_convs(prepared)["stem"].freeze_bn_()
    assert (quantizer_state(prepared)["bn_live"], quantizer_state(prepared)["bn_frozen"]) == (2, 1)


def test_an_int8_network_may_be_evaluated(relu_pair, images):
    assert require_state(qnnpack.convert(calibrate(relu_pair, "per_tensor", SPEC, images)), "evaluate")


def test_an_unknown_phase_is_named(relu_pair):
    with pytest.raises(ValueError, match="'training'"):
        require_state(relu_pair, "training")


def test_asking_changes_nothing(all_kinds, images):
    prepared = calibrate(all_kinds, "per_channel", SPEC, images)
    before = {name: value.clone() for name, value in prepared.state_dict().items()}
    require_state(prepared, "evaluate")
    assert all(torch.equal(value, before[name]) for name, value in prepared.state_dict().items())
