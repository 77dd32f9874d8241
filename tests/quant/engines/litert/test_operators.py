"""Every operator of a ``.tflite`` file gives what the simulation of its recipe gives, within one level."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from quant.calibrate import calibrate
from quant.engines.catalog import missing
from quant.engines.decomposed import decompose
from quant.engines.exported import ExportedNetwork, export
from quant.engines.int8_forms import int8_gates, requantized_concatenations
from quant.graph import UnsupportedNetworkError
from quant.prepare import quant_convs
from quant.recipe import CalibrateSpec
from quant.tracing.trace import fuse_bn

pytestmark = pytest.mark.skipif(missing("litert") is not None, reason=str(missing("litert")))
SIZE, CHANNELS = 12, 6
CONVERSIONS = ("QUANTIZE", "DEQUANTIZE", "DELEGATE")


class Between(nn.Module):
    """An operator between two convolutions; its input and its result are outputs too."""

    def __init__(self, operator):
        super().__init__()
        self.first, self.operator, self.last = nn.Conv2d(3, CHANNELS, 1), operator, nn.Conv2d(CHANNELS, 4, 1)

    def forward(self, x):
        given = self.first(x)
        found = self.operator(given)
        return given, found, self.last(found)


class Applied(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def conv(*arguments, **options):
    return nn.Conv2d(CHANNELS, CHANNELS, *arguments, **options)


IN_INT8 = {
    "conv": conv(3, padding=1),
    "conv_padded_in_front_only_where_the_format_pads_behind": conv(3, stride=2, padding=1),
    "conv_dilated": conv(3, padding=2, dilation=2),
    "conv_grouped": conv(3, padding=1, groups=2),
    "depthwise": conv(5, padding=2, groups=CHANNELS),
    "relu": nn.Sequential(conv(1), nn.ReLU()),
    "relu6": nn.Sequential(conv(1), nn.ReLU6()),
    "sigmoid": nn.Sigmoid(),
    "silu": nn.SiLU(),
    "hardswish": nn.Hardswish(),
    "gelu": nn.GELU(),
    "leaky_relu": nn.LeakyReLU(0.1),
    "sum_with_relu": Applied(lambda x: F.relu(x + torch.relu(x))),
    "product": Applied(lambda x: x * torch.relu(x)),
    "gate_of_one_pixel": Applied(lambda x: x * torch.sigmoid(F.adaptive_avg_pool2d(x, 1))),
    "max_pool": nn.MaxPool2d(3, 2, 1),
    "average_pool": nn.AvgPool2d(2),
    "adaptive_average_of_a_divisor": nn.AdaptiveAvgPool2d(4),
    "bilinear": nn.Upsample(scale_factor=2, mode="bilinear"),
    "bilinear_aligned": nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
    "nearest": nn.Upsample(scale_factor=2),
    "zero_pad": nn.ZeroPad2d((1, 0, 2, 1)),
    "concatenation_of_two_ranges": Applied(lambda x: torch.cat([x, x * torch.relu(x)], 1)[:, 3:9]),
    "channel_shuffle": nn.ChannelShuffle(2),
    "pixel_shuffle_and_back": nn.Sequential(nn.PixelUnshuffle(2), nn.PixelShuffle(2)),
}
IN_FLOAT = {
    "hardsigmoid": nn.Hardsigmoid(),
    "tanh": nn.Tanh(),
    "mish": nn.Mish(),
    "softplus": nn.Softplus(),
    "group_norm": nn.GroupNorm(2, CHANNELS),
    "layer_norm_of_channels": Applied(lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (CHANNELS,)).permute(0, 3, 1, 2)),
    "attention": Applied(
        lambda x: F.scaled_dot_product_attention(*[x.flatten(2).transpose(1, 2)] * 3).transpose(1, 2).view(x.shape)
    ),
    "adaptive_average_of_no_divisor": nn.AdaptiveAvgPool2d(5),
    "softmax_over_channels": nn.Softmax(1),
}


def images():
    return 2 * torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def prepared(operator, **options):
    torch.manual_seed(0)
    network = fuse_bn(Between(operator).eval(), images()[:1])
    return calibrate(network, "per_channel", CalibrateSpec(activation_range="minmax"), images(), **options)


class Given(fx.Interpreter):
    """The simulation from a rounded value on, which it is given."""

    def __init__(self, form, rounding, levels):
        super().__init__(form)
        self.rounding, self.levels = rounding, levels

    def run_node(self, node):
        return self.levels if node is self.rounding else super().run_node(node)


def written(network, tmp_path):
    """The file's network, what its operator gives, what the simulation gives for the same levels, and their step.

    The convolution in front may differ by a level itself, which many operators would enlarge.
    """
    export(network, "litert", images()[:1], tmp_path / "network.tflite")
    form = requantized_concatenations(int8_gates(decompose(network, True), (1 / 256, -128)))
    (output,) = form.graph.find_nodes(op="output")
    (rounding, scale, zero_point, *_), (_, step, *_) = (one.args for one in output.args[0][:2])
    run = ExportedNetwork("litert", tmp_path / "network.tflite")
    with torch.inference_mode():
        given, found, _ = run(images())
        levels = ((given / scale).round() + zero_point).to(torch.int8)
        expected = Given(form, rounding, levels).run(images())[1]
    assert ((given - form(images())[0]) / scale).abs().max() < 1.5
    return run, found, expected, step


def operators(run):
    return [one["op_name"] for one in run.run.interpreter._get_ops_details()]


def in_float(run):
    """The operators that compute in float."""
    details = [one for one in run.run.interpreter._get_ops_details() if one["op_name"] not in CONVERSIONS]
    return [one["op_name"] for one in details if np.float32 in one["operand_types"]]


def most_levels(found, expected, step):
    """The largest difference, in levels of the output, and how often there is any."""
    apart = ((found - expected) / step).abs().round()
    return int(apart.max()), float((apart > 0).float().mean())


@pytest.mark.parametrize("kind", [*IN_INT8, *IN_FLOAT])
def test_an_operator_is_within_a_level_of_its_simulation(kind, tmp_path):
    network = prepared((IN_INT8 | IN_FLOAT)[kind])
    run, found, expected, step = written(network, tmp_path)
    most, often = most_levels(found, expected, step)
    assert most <= 1
    assert often < 0.3, "averages lie half way between two levels often"
    assert most_levels(expected.roll(1, 0), expected, step)[0] > 10, "it must be able to fail"
    assert bool(in_float(run)) == (kind in IN_FLOAT)


def test_xnnpack_takes_a_whole_network_of_convolutions_sums_and_resizing(tmp_path):
    operator = nn.Sequential(IN_INT8["conv"], nn.SiLU(), IN_INT8["depthwise"], IN_INT8["bilinear"])
    run, *_ = written(prepared(operator), tmp_path)
    details = run.run.interpreter._get_ops_details()
    delegated = [one for one in details if one["op_name"] == "DELEGATE"]
    assert len(delegated) == 1
    assert {one["index"] for one in run.run.interpreter.get_output_details()} <= set(delegated[0]["outputs"])


@pytest.mark.parametrize("kind", ["relu", "conv", "conv_dilated"])
def test_weights_of_4_bits_take_half_a_byte_and_give_the_same_outputs(kind, tmp_path, monkeypatch):
    network = prepared(IN_INT8[kind])
    narrow = prepared(IN_INT8[kind], weight_bits=dict.fromkeys(quant_convs(network), 4))
    run, found, expected, step = written(narrow, tmp_path)
    assert operators(run).count("FULLY_CONNECTED") == 2, "the first has three inputs, which XNNPACK does not take"
    assert most_levels(found, expected, step)[0] <= 1
    monkeypatch.setattr("quant.engines.litert.convolutions.fits_in_4_bits", lambda weight: False)
    (tmp_path / "bytes").mkdir()
    wide, of_bytes, *_ = written(narrow, tmp_path / "bytes")
    assert torch.equal(found, of_bytes)
    assert "FULLY_CONNECTED" not in operators(wide)


def test_an_operator_without_a_form_is_named(tmp_path):
    network = prepared(nn.Identity())
    (node,) = [one for one in network.graph.nodes if one.target == "last"]
    with network.graph.inserting_before(node):
        node.args = (network.graph.call_function(torch.cumsum, (node.args[0], 1)),)
    network.recompile()
    with pytest.raises(UnsupportedNetworkError, match=r"litert has no form for aten\.cumsum\.default: it is unknown"):
        export(network, "litert", images()[:1], tmp_path / "network.tflite")
