"""What cannot be taken apart is refused in one line: operator, module, line of code, and what to do."""

import pytest
import torch
import torchvision
from torch import Tensor, nn

from quant.graph import UnsupportedNetworkError
from quant.tracing.refusal import run
from quant.tracing.trace import trace
from tests.quant.tracing.zoo_python import BranchOnValues, OtherwiseByBatch

EXAMPLE = torch.zeros(1, 3, 16, 16)


class ThroughNumpy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.from_numpy(x.detach().numpy() * 2.0))


class Sequential(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), BranchOnValues())

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[1](x)


@pytest.mark.parametrize(
    ("network", "place", "code", "advice"),
    [
        (BranchOnValues(), "BranchOnValues.inner (BrightOrDark)", "`if x.mean() > 0:`", "torch.where"),
        (Sequential(), "Sequential.layers.1.inner (BrightOrDark)", "`if x.mean() > 0:`", "torch.where"),
        (ThroughNumpy(), "ThroughNumpy, ", "x.detach().numpy() * 2.0", "operators of torch.nn"),
        (OtherwiseByBatch(), "OtherwiseByBatch, ", "self.conv(x) * (len(x) + 1)`", "mul depends on the batch"),
    ],
    ids=["branch", "nested", "numpy", "batch"],
)
def test_a_refusal_names_module_line_and_way_out(network, place, code, advice, capfd):
    with pytest.raises(UnsupportedNetworkError) as caught:
        trace(network, EXAMPLE)
    message = str(caught.value)
    assert message.startswith(place)
    assert code in message
    assert advice in message
    assert ".py:" in message
    assert "\n" not in message
    assert capfd.readouterr() == ("", ""), "nothing else is printed"


class Pairs(nn.Module):
    def forward(self, left: Tensor, right: Tensor, scale: float = 1.0) -> Tensor:
        return (left - right) * scale


def test_a_network_of_several_inputs_is_told_what_it_takes():
    with pytest.raises(UnsupportedNetworkError, match="Pairs cannot be traced: its forward takes left and right; exp"):
        trace(Pairs(), EXAMPLE)


def test_a_line_of_a_library_beside_torch_is_the_network_s_own():
    network = torchvision.models.detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None).eval()
    with pytest.raises(UnsupportedNetworkError, match=r"torchvision/ops/boxes\.py:\d+, `if boxes"):
        trace(network, torch.zeros(1, 3, 320, 320))


class FailsForOne(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if len(x) > 1 else self.conv(x) * 2.0


def test_a_network_that_does_otherwise_with_one_image_is_refused():
    with pytest.raises(UnsupportedNetworkError, match="for 1 images"):
        trace(FailsForOne(), EXAMPLE)


class OfOneSize(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x + x.new_ones(x.shape[-1])


def test_what_fails_in_the_run_of_a_graph_is_an_operator_and_a_line():
    graph_module = trace(OfOneSize(), EXAMPLE)
    assert torch.equal(run(graph_module, EXAMPLE), graph_module(EXAMPLE))
    with pytest.raises(UnsupportedNetworkError) as caught:
        run(graph_module, torch.zeros(1, 3, 20, 20))
    place, _, reason = str(caught.value).partition("`: ")
    assert place.startswith("call_function operator.add, ")
    assert place.endswith("`return x + x.new_ones(x.shape[-1])")
    assert reason.startswith("The size of tensor a (18) must match")
