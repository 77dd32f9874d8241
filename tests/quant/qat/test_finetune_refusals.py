"""What stops a training: quantizers in another state, and figures that are not finite."""

import copy
from dataclasses import replace

import pytest
import torch

from quant.prepare import prepare
from quant.qat.finetune import prepare_for_qat
from quant.state import QuantizerStateError
from tests.quant.networks import (
    activation_quantizers,
    same_tensors,
    weight_quantizers,
)
from tests.quant.qat.training import CALIBRATE, SPEC, run, warm


@pytest.mark.parametrize("mode", ["off", "calibrate"])
@pytest.mark.parametrize("kind", ["activation", "weight"])
def test_a_quantizer_that_does_not_quantize_stops_the_training(network, pack, mode, kind):
    prepared = warm(network, pack)
    name, quantizer = list((activation_quantizers if kind == "activation" else weight_quantizers)(prepared).items())[2]
    quantizer.set_mode(mode)
    before = {key: value.clone() for key, value in prepared.state_dict().items()}
    with pytest.raises(QuantizerStateError, match=f"{name} is {mode}"):
        run(prepared, pack, network)
    assert same_tensors(before, prepared.state_dict()), "not one step was made"


def test_a_network_that_was_only_prepared_cannot_be_trained(network, pack):
    with pytest.raises(QuantizerStateError, match="is off"):
        run(prepare(network, "per_channel"), pack, network)


def test_a_loss_that_is_not_finite_stops_the_training(network, pack):
    teacher = copy.deepcopy(network)
    with torch.no_grad():
        teacher.head.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="loss became nan at step 1 of 4"):
        run(warm(network, pack), pack, teacher)


@pytest.mark.parametrize("start", ["warm", "cold"])
def test_parameters_that_run_to_infinity_stop_the_training(network, pack, start):
    """Frozen quantizers clamp infinite weights, so that the loss alone does not tell."""
    prepared = warm(network, pack) if start == "warm" else prepare_for_qat(network, "per_channel", CALIBRATE)
    with pytest.raises(FloatingPointError):
        run(prepared, pack, network, replace(SPEC, travel=1e300))
