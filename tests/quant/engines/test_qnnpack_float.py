"""Operators that stay in float beside the int8 ones: quantizers that are off, and weights alone."""

import pytest
import torch
from torch import nn

from model.noise import sqnr_db
from quant.engines import qnnpack
from quant.prepare import QuantConv, quantizers
from tests.quant.networks import (
    activation_quantizers,
    reference,
    weight_quantizers,
)

# -- mixed precision, ReLU6, and what cannot be


OFF = ["quantizers.x", "quantizers.stem", "quantizers.silu", "quantizers.depthwise", "quantizers.gate_sigmoid"]
OFF += ["quantizers.mul", "quantizers.add", "quantizers.cat", "quantizers.head", "one.weight_quantizer"]
OFF += ["stem.weight_quantizer", "depthwise.weight_quantizer", "head.weight_quantizer"]


@pytest.mark.parametrize("off", OFF)
def test_a_quantizer_that_is_off_leaves_its_operator_in_float_and_the_network_runs(fresh_kinds, fresh_images, off):
    quantizers(fresh_kinds)[off].set_mode("off")
    int8 = qnnpack.convert(fresh_kinds)
    simulated, shipped = reference(fresh_kinds, fresh_images), reference(int8, fresh_images)
    assert shipped.dtype == torch.float32
    assert sqnr_db(simulated, shipped) > 30
    if off.endswith("weight_quantizer"):
        name = off.removesuffix(".weight_quantizer")
        assert sum(isinstance(module, nn.Conv2d) for module in int8.get_submodule(name).modules()) == 1
    assert not any(isinstance(module, QuantConv) for module in int8.modules()), "what ships rounds no weights"


def test_with_all_quantizers_off_the_network_is_the_float_network(all_kinds, kinds, fresh_kinds, fresh_images):
    for quantizer in quantizers(fresh_kinds).values():
        quantizer.set_mode("off")
    int8 = qnnpack.convert(fresh_kinds)
    assert torch.allclose(reference(int8, fresh_images), reference(all_kinds, fresh_images), atol=1e-5)


def test_weights_alone_in_int8_are_simulated_in_float(fresh_kinds, fresh_images):
    for quantizer in activation_quantizers(fresh_kinds).values():
        quantizer.set_mode("off")
    assert torch.equal(reference(qnnpack.convert(fresh_kinds), fresh_images), reference(fresh_kinds, fresh_images))
    assert {quantizer.mode for quantizer in weight_quantizers(fresh_kinds).values()} == {"freeze"}
