"""Sums whose terms are of too unlike scales for the kernel are float, and stay so when the network is loaded again."""

import torch
from torch import fx

from model.network.spec import NetworkSpec
from quant.artifact import Form, load_network, save_network
from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.graph import ADDITIONS
from quant.prepare import quantizers
from quant.recipe import CalibrateSpec
from tests.quant.networks import reference


def int8_sums(network: fx.GraphModule) -> int:
    return sum(node.target is torch.ops.quantized.add for node in network.graph.nodes)


def test_a_network_with_a_float_sum_comes_back_as_it_was(depth_network, images, fresh_images, tmp_path):
    prepared = calibrate(depth_network, "per_channel", CalibrateSpec(activation_range="minmax"), images)
    plain = qnnpack.convert(prepared)
    named = quantizers(prepared)
    term = next(node.args[0] for node in prepared.graph.nodes if node.target in ADDITIONS)
    named[str(term.target)].set_range(torch.tensor([-1e-7]), torch.tensor([1e-7]))
    int8 = qnnpack.convert(prepared)
    assert int8_sums(int8) == int8_sums(plain) - 1
    save_network(tmp_path, int8, Form(NetworkSpec(input_size=64), False, "int8", False, "per_channel", "qnnpack"))
    loaded = load_network(tmp_path)
    assert int8_sums(loaded) == int8_sums(int8)
    assert torch.equal(reference(loaded, fresh_images), reference(int8, fresh_images))
