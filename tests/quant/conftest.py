"""The settled networks of the quantization tests; tests only read them, the contract suite proves that steps do too."""

import pytest
import torch

from model.network.build import build_network
from model.network.spec import NetworkSpec
from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.recipe import CalibrateSpec
from quant.scaled_silu import ScaledSiLU, scale_silus
from quant.tracing.trace import fuse_bn, trace
from tests.quant.networks import AllKinds, ReluPair, settled, smooth_images

SIZE = 64


def pytest_itemcollected(item):
    """PyTorch has deprecated its quantized tensors; that is known and no finding of these tests."""
    for known in ("torch.quantize_per_tensor, torch.quantize_per_channel", "TypedStorage is deprecated"):
        item.add_marker(pytest.mark.filterwarnings(f"ignore:{known}"))


@pytest.fixture(scope="session")
def images():
    return smooth_images(12, SIZE)


@pytest.fixture(scope="session")
def fresh_images():
    """Images that no range was set from."""
    return smooth_images(8, SIZE, seed=7)


@pytest.fixture(scope="session")
def depth_network(images):
    """The network of the mission at 64x64 pixels, in eval mode."""
    torch.manual_seed(0)
    return settled(build_network(NetworkSpec(input_size=SIZE)), images)


@pytest.fixture(scope="session")
def relu_pair(images):
    torch.manual_seed(0)
    return settled(ReluPair(), images)


@pytest.fixture(scope="session")
def all_kinds(images):
    torch.manual_seed(0)
    return settled(AllKinds(), images)


@pytest.fixture(scope="session")
def calibrated(depth_network, images):
    """The real network calibrated, by (fused, granularity)."""
    made = {}
    for fused in (False, True):
        source = fuse_bn(depth_network) if fused else depth_network
        for granularity in ("per_channel", "per_tensor"):
            spec = CalibrateSpec(activation_range="minmax")
            made[fused, granularity] = calibrate(source, granularity, spec, images)
    return made


@pytest.fixture(scope="session")
def int8(calibrated):
    """The real network on the engine, by (fused, granularity)."""
    return {key: qnnpack.convert(prepared) for key, prepared in calibrated.items()}


@pytest.fixture(scope="session")
def scaled(depth_network, images):
    """The real network, per tensor, with SiLUs that carry scales."""
    network = scale_silus(trace(depth_network))
    for index, module in enumerate(m for m in network.modules() if isinstance(m, ScaledSiLU)):
        module.scale_(torch.arange(len(module.exponent)) % 5 + index % 3 - 3)
    return calibrate(network, "per_tensor", CalibrateSpec(activation_range="minmax"), images)
