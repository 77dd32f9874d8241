"""The whole inspection: outputs of all kinds, engines that are missing or fail, memory and cautions."""

import json

import pytest
import torch
from torch import Tensor, nn

from quant.graph import UnsupportedNetworkError
from quant.inspection import inspection
from quant.inspection.inspection import Inspection, inspect_network
from quant.inspection.memory import peak_activations
from quant.inspection.on_qnnpack import int8_form
from quant.inspection.operators import float_form
from tests.quant.inspection.small_networks import MACS, SIZE, Between, noise, prepared

PIXELS = SIZE * SIZE
ONLY = ("qnnpack",)


class Giving(nn.Module):
    """What ``wrap`` makes of the output."""

    def __init__(self, wrap) -> None:
        super().__init__()
        self.network, self.wrap = Between(nn.ReLU()), wrap

    def forward(self, x: Tensor):
        return self.wrap(self.network(x))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda y: y,
        lambda y: {"out": y, "aux": y * 2.0},
        lambda y: {"depth": y},
        lambda y: (y, None),
        lambda y: [y],
    ],
)
def test_outputs_of_all_common_kinds_are_taken(wrap):
    found = inspect_network(Giving(wrap), noise(), ONLY, passes=1)
    assert {one.name.removeprefix("network_") for one in found.operators} >= {"first_0", "middle", "last"}
    assert sum(one.macs for one in found.operators) == sum(MACS.values())
    assert found.absent == {}


def test_nested_outputs_are_refused_with_what_is_expected():
    with pytest.raises(UnsupportedNetworkError, match="returns nested values; expected a tensor, a tuple or list"):
        inspect_network(Giving(lambda y: {"levels": [y, y]}), noise(), ONLY)


def test_values_that_are_not_finite_are_refused():
    network = Between(nn.ReLU())
    with torch.no_grad():
        network.middle.weight.fill_(float("inf"))
    with pytest.raises(UnsupportedNetworkError, match="quantizer range is not finite"):
        inspect_network(network, noise(), ONLY)


def test_an_engine_that_is_missing_or_fails_leaves_the_others_their_answers(monkeypatch):
    def failing(network, image):
        raise ValueError("no such operator\nand a long trace")

    monkeypatch.setattr(inspection, "missing", lambda name: "xnnpack needs x: pip" if name == "xnnpack" else None)
    monkeypatch.setitem(inspection.ENGINES, "onnxruntime", failing)
    found = inspect_network(Between(nn.ReLU()), noise(), ("qnnpack", "onnxruntime", "xnnpack"), passes=1)
    assert [placement.engine for placement in found.placements] == ["qnnpack"]
    assert found.absent == {
        "onnxruntime": "it does not take the network: no such operator",
        "xnnpack": "xnnpack needs x: pip",
    }


def test_the_inspected_network_stays_as_it_is():
    network = Between(nn.Hardswish())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    inspect_network(network, noise(), ONLY, passes=1)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert isinstance(network.first[1], nn.BatchNorm2d)


def test_the_peak_of_memory_is_what_is_alive_at_one_operator():
    network = prepared(Between(nn.GELU()))
    peak = peak_activations(float_form(network), noise(5)[:1])
    # The first convolution's output is kept for the sum: with input and output of the activation, or of the middle.
    assert (peak.size, peak.operator) == (3 * 8 * PIXELS * 4, "activation")
    int8 = peak_activations(int8_form(network), noise(1))
    assert int8.operator == "activation"
    # In int8 the kept value and the input of the island, in float its input and output.
    assert int8.size == 8 * PIXELS * (1 + 4 + 4)


class Unlike(nn.Module):
    """A sum of unlike ranges, unlike channels, and an activation that equalization cannot pass."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.depthwise = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.last = nn.Conv2d(8, 4, 1)
        with torch.no_grad():
            self.depthwise.weight.copy_(torch.ones(8, 1, 3, 3))
            self.depthwise.weight[:4] *= factor
            self.depthwise.weight *= factor

    def forward(self, x: Tensor) -> Tensor:
        low = self.first(x)
        return self.last(low + self.depthwise(low))


def test_unlike_ranges_and_channels_are_cautioned_and_like_ones_are_not():
    found = inspect_network(Unlike(30.0), noise(), ONLY, passes=1)
    (ranges, depthwise) = found.cautions
    assert "One addition or concatenation joins values of very unlike ranges" in ranges
    assert "4 of 8 channels of depthwise are left with fewer than 16 of 127 levels" in depthwise
    assert inspect_network(Unlike(1.0), noise(), ONLY, passes=1).cautions == ()


@pytest.mark.parametrize(("activation", "cautioned"), [(nn.SiLU(), False), (nn.Hardswish(), True), (nn.ReLU(), False)])
def test_activations_that_stop_equalization_are_named(activation, cautioned):
    found = inspect_network(Between(activation), noise(), ONLY, passes=1)
    assert any("Equalization stops at 1 Hardswish" in one for one in found.cautions) == cautioned


def test_an_inspection_survives_json():
    found = inspect_network(Between(nn.GELU()), noise(), ONLY, passes=1)
    assert Inspection.read(json.loads(json.dumps(found.document()))) == found
