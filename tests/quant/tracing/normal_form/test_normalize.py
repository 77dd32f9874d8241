"""The same function in fewer ways to write it: modules for functions, convolutions for linear layers."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.noise import sqnr_db
from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.equalization.equalize import equalize
from quant.graph import conv_blocks, module_of
from quant.prepare import quant_convs
from quant.recipe import CalibrateSpec, EqualizeSpec
from quant.tracing.trace import fuse_bn, trace
from tests.quant.networks import reference, settled


class Classifier(nn.Module):
    """Functions where modules could be, sizes read, two linear layers behind pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.conv = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.hidden = nn.Linear(16, 32)
        self.last = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)), inplace=True)
        count, channels, height, width = x.size()
        x = x.view(count, 2, channels // 2, height, width).transpose(1, 2).contiguous().view(count, -1, height, width)
        left, right = F.relu6(self.conv(x)).chunk(2, dim=1)
        x = F.adaptive_avg_pool2d(torch.cat([right, left], 1), 1).view(count, -1)
        return self.last(F.dropout(F.relu(self.hidden(x)), 0.2, self.training))


class Mixer(nn.Module):
    """Linear layers over tokens, with GELU between."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.up = nn.Linear(8, 24)
        self.down = nn.Linear(24, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = tokens + self.down(F.gelu(self.up(tokens)))
        return tokens.transpose(1, 2).reshape(len(x), 8, x.shape[2] // 4, -1)


@pytest.fixture(params=[Classifier, Mixer])
def network(request, images):
    torch.manual_seed(0)
    return settled(request.param(), images)


def test_the_function_is_the_same_for_any_number_of_images(network, images):
    graph_module = trace(network, images[:1])
    for count in (1, 3):
        assert torch.allclose(graph_module(images[:count]), network(images[:count]), atol=1e-5)


def test_linear_layers_are_convolutions_of_the_same_name(network, images):
    graph_module = trace(network, images[:1])
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    assert not any(isinstance(module, nn.Linear) for module in graph_module.modules())
    assert set(linear) < {str(block.conv.target) for block in conv_blocks(graph_module)}


def test_an_activation_between_linear_layers_belongs_to_the_first(images):
    graph_module = trace(Classifier().eval(), images[:1])
    blocks = {str(block.conv.target): block for block in conv_blocks(graph_module)}
    kinds = {name: type(module_of(graph_module, block.activation)) for name, block in blocks.items()}
    assert kinds == {"stem": nn.ReLU, "conv": nn.ReLU6, "hidden": nn.ReLU, "last": type(None)}
    assert blocks["last"].conv.args[0] is blocks["hidden"].last, "no reshape stands between"


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_all_of_it_runs_in_int8_as_simulated(network, images, granularity):
    float_network = fuse_bn(network, images[:1])
    equalized = equalize(float_network, EqualizeSpec(images=2), images, granularity)
    assert torch.allclose(reference(equalized, images), reference(network, images), atol=1e-3)
    prepared = calibrate(equalized, granularity, CalibrateSpec(activation_range="minmax"), images)
    linear = {name for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    assert linear < set(quant_convs(prepared))
    int8 = qnnpack.convert(prepared)
    simulated = reference(prepared, images)
    assert sqnr_db(reference(network, images), simulated) > 20
    assert sqnr_db(simulated, torch.cat([int8(image[None]) for image in images])) > 30


class PadsToMultiplesOfFour(nn.Module):
    """As window attention does: by nothing where the size fits."""

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[-2:]
        return F.pad(x, (0, -columns % 4, 0, -rows % 4)).mean(1, keepdim=True)


@pytest.mark.parametrize(("size", "pads"), [(16, 0), (15, 1)])
def test_a_pad_of_no_width_is_dropped(size, pads):
    images = torch.randn(1, 3, size, size)
    traced = trace(PadsToMultiplesOfFour().eval(), images)
    found = [node for node in traced.graph.nodes if "pad" in f"{node.target}{module_of(traced, node)}".lower()]
    assert len(found) == pads
    torch.testing.assert_close(traced(images), PadsToMultiplesOfFour()(images))
