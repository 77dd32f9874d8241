"""Sizes that a forward reads are constants of the graph, and the batch is not."""

import pytest
import torch
from torch import Tensor, fx, nn

from model.network.tracing import SizesError, trace_with_sizes

EXAMPLE = torch.zeros(1, 3, 8, 8)


class Shuffle(nn.Module):
    """What networks do with sizes: channel shuffle, a branch, a grid of the size, tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.token = nn.Parameter(torch.randn(1, 1, 4))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(self.conv(x))
        count, channels, height, width = x.shape
        x = x.view(count, 2, channels // 2, height, width).transpose(1, 2).reshape(count, channels, height, width)
        if x.size(-1) > 4 and x.dim() == 4:
            x = x + torch.linspace(0, 1, x.shape[-1], device=x.device)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), x.flatten(2).mT], dim=1)
        first, rest = tokens.split([1, tokens.shape[1] - 1], dim=1)
        return first + rest.mean(1, keepdim=True) / count


def test_the_graph_computes_the_same_for_any_number_of_images():
    torch.manual_seed(0)
    network = Shuffle().eval()
    graph_module = trace_with_sizes(network, EXAMPLE)
    for count in (1, 2, 5):
        images = torch.randn(count, 3, 8, 8)
        assert torch.equal(graph_module(images), network(images))


def test_names_parameters_and_modes_are_those_of_the_network():
    network = Shuffle().train()
    network.conv.eval()
    graph_module = trace_with_sizes(network, EXAMPLE)
    assert set(graph_module.state_dict()) == {*network.state_dict(), "_tensor_constant0"}
    assert graph_module.training
    assert graph_module.dropout.training
    assert not graph_module.conv.training
    assert network.training, "the network itself is left alone"


def test_what_the_forward_makes_by_itself_goes_where_the_network_goes():
    graph_module = trace_with_sizes(Shuffle(), EXAMPLE)
    assert {name: tuple(value.shape) for name, value in graph_module.named_buffers()} == {"_tensor_constant0": (8,)}
    assert all(value.is_meta for value in graph_module.to("meta").buffers())


class OtherwiseByBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * (x.shape[0] + 1)


class MoreOperatorsByBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu() if x.shape[0] > 2 else x


class BranchOnValues(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("network", "error", "message"),
    [
        (OtherwiseByBatch(), SizesError, r"mul.*depends on the batch as \[\(3, 4\)\]"),
        (MoreOperatorsByBatch(), SizesError, "runs other operators with 3 images than with 2"),
        (BranchOnValues(), fx.proxy.TraceError, "control flow"),
    ],
)
def test_what_no_graph_of_constants_holds_is_refused(network, error, message):
    with pytest.raises(error, match=message):
        trace_with_sizes(network, EXAMPLE)
