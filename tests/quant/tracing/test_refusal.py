"""What cannot be taken apart is refused in one line: operator, module, line of code, and what to do."""

import pytest
import torch
from torch import Tensor, nn

from quant.graph import UnsupportedNetworkError
from quant.quantizable import require_quantizable
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


class FailsForOne(nn.Module):
    """A sort of float values in an order that int8 has no kernel for is fine; a product of other sizes is not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if len(x) > 1 else self.conv(x) * 2.0


def test_a_network_that_does_otherwise_with_one_image_is_refused():
    with pytest.raises(UnsupportedNetworkError, match="for 1 images"):
        trace(FailsForOne(), EXAMPLE)


def test_what_fails_behind_tracing_names_operator_and_line(monkeypatch):
    """The int8 network fails where its kernel does."""

    def broken(self: nn.Module, x: Tensor) -> Tensor:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(nn.Hardswish, "forward", broken)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    require_quantizable(network, 16)  # holds no Hardswish
    with pytest.raises(UnsupportedNetworkError, match="no kernel"):
        require_quantizable(nn.Sequential(network, nn.Hardswish()), 16)
