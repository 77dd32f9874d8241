"""Transposed convolutions are convolutions and a pixel shuffle."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.noise import sqnr_db
from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.recipe import CalibrateSpec
from quant.tracing.normal_form.transposed import sub_pixel_convolution
from quant.tracing.trace import fuse_bn, trace
from tests.quant.networks import settled

GEOMETRIES = [
    (kernel, stride, padding, output_padding, dilation)
    for kernel, stride, padding, output_padding, dilation in itertools.product(
        (1, 2, 3, 4, 5), (1, 2, 3), (0, 1, 2), (0, 1, 2), (1, 2)
    )
    if output_padding < max(stride, dilation) and padding <= dilation * (kernel - 1)
]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("kernel", "stride", "padding", "output_padding", "dilation"), GEOMETRIES)
def test_the_shuffled_convolution_computes_the_same(kernel, stride, padding, output_padding, dilation, groups):
    torch.manual_seed(0)
    transposed = nn.ConvTranspose2d(4, 6, kernel, stride, padding, output_padding, groups, dilation=dilation)
    images = torch.randn(2, 4, 5, 6)
    expected = transposed(images)
    conv, (top, left) = sub_pixel_convolution(transposed, images.shape[2:], expected.shape[2:])
    pixels = F.pixel_shuffle(conv(images), stride)
    found = pixels[:, :, top : top + expected.shape[2], left : left + expected.shape[3]]
    torch.testing.assert_close(found, expected)


class Decoder(nn.Module):
    """Up by two in two ways, with a BatchNorm and a clamp behind the first."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.up = nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1, output_padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.act = nn.ReLU()
        self.last = nn.ConvTranspose2d(6, 2, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.act(self.norm(self.up(F.relu(self.down(x))))))


def test_a_decoder_is_all_int8_and_close_to_its_float_network(images):
    torch.manual_seed(0)
    network = settled(Decoder(), images)
    with torch.no_grad():
        exact = network(images)
        torch.testing.assert_close(trace(network, images[:1])(images), exact, rtol=1e-4, atol=1e-5)
        fused = fuse_bn(network, images[:1])
        torch.testing.assert_close(fused(images), exact, rtol=1e-4, atol=1e-5)
    prepared = calibrate(fused, "per_channel", CalibrateSpec(), images)
    int8 = qnnpack.convert(prepared)
    calls = [node.target for node in int8.graph.nodes if node.op == "call_method"]
    assert calls == ["dequantize"]  # of the output: nothing between is in float
    with torch.no_grad():
        assert sqnr_db(prepared(images), int8(images)) > 40
        assert sqnr_db(exact, int8(images)) > 30
