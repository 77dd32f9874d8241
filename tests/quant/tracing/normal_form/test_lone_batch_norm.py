"""A BatchNorm without a convolution runs in int8 as a depthwise one."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.noise import sqnr_db
from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.graph import conv_blocks
from quant.recipe import CalibrateSpec
from quant.tracing.trace import fuse_bn, trace
from tests.quant.networks import settled


class Dense(nn.Module):
    """BatchNorm on a concatenation, and on a value that others read too."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(11)
        self.mix = nn.Conv2d(11, 8, 1)
        self.branch = nn.BatchNorm2d(8)
        self.last = nn.Conv2d(8, 4, 1)
        self.follows = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(F.relu(self.norm(torch.cat([self.first(x), x], 1))))
        return self.follows(self.last(self.branch(x) + x))


def test_it_folds_and_runs_in_int8(images):
    torch.manual_seed(0)
    network = settled(Dense(), images)
    traced, fused = trace(network, images[:1]), fuse_bn(network, images[:1])
    convolutions = [str(block.conv.target) for block in conv_blocks(fused)]
    assert convolutions == ["first", "norm_convolution", "mix", "branch_convolution", "last"]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    assert [block.bn is not None for block in conv_blocks(traced)] == [False, True, False, True, True]
    prepared = calibrate(fused, "per_channel", CalibrateSpec(activation_range="minmax"), images)
    int8 = qnnpack.convert(prepared)
    assert [node.target for node in int8.graph.nodes if node.op == "call_method"] == ["dequantize"]
    with torch.no_grad():
        exact = network(images)
        torch.testing.assert_close(traced(images), exact)
        torch.testing.assert_close(fused(images), exact, rtol=1e-4, atol=1e-5)
        assert sqnr_db(prepared(images), int8(images)) > 40
