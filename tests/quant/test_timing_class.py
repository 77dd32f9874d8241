"""A timing class: what decides how long a network takes tells networks apart, and nothing else does."""

import pytest
import torch
from torch import nn

from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.engines.catalog import PACKAGES
from quant.prepare import QuantConv
from quant.recipe import CalibrateSpec
from quant.timing_class import file_structure, timing_class

MINMAX = CalibrateSpec(activation_range="minmax")
SHAPE = (1, 3, 32, 32)


class Small(nn.Module):
    """Convolutions with and without an activation, and an addition."""

    def __init__(self, width: int = 8, kernel: int = 3) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, width, kernel, padding=kernel // 2), nn.BatchNorm2d(width), nn.ReLU())
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.second(x) + x


def prepared(granularity: str = "per_channel", seed: int = 0, off: str = "", **shape: int):
    torch.manual_seed(seed)
    network = calibrate(Small(**shape).eval(), granularity, MINMAX, torch.rand(4, *SHAPE[1:]))
    for name, module in network.named_modules():
        if off and isinstance(module, QuantConv) and off in name:
            module.weight_quantizer.set_mode("off")
    return network


def class_of(granularity: str = "per_channel", engine: str = "qnnpack", **given) -> str:
    return timing_class(qnnpack.convert(prepared(granularity, **given), engine), SHAPE)


@pytest.fixture(autouse=True)
def _engine_as_before():
    before = torch.backends.quantized.engine
    yield
    torch.backends.quantized.engine = before


needs_x86 = pytest.mark.skipif("x86" not in torch.backends.quantized.supported_engines, reason="no x86 kernels")


def test_weights_and_scales_do_not_count_and_geometry_and_float_operators_do():
    assert class_of() == class_of(seed=1)
    others = [class_of(width=16), class_of(kernel=5), class_of(off="second")]
    assert len({class_of(), *others}) == 4


def test_qnnpack_treats_both_granularities_alike():
    assert class_of("per_channel") == class_of("per_tensor")


@needs_x86
def test_x86_does_not_and_every_engine_is_a_class():
    assert class_of("per_channel", "x86") != class_of("per_tensor", "x86")
    assert class_of(engine="x86") != class_of()


def test_a_float_network_counts_its_input_and_how_it_is_run():
    network = Small().eval()
    classes = [timing_class(network, SHAPE), timing_class(network, (1, 3, 64, 64))]
    classes += [timing_class(network, SHAPE, "channels_last"), timing_class(Small(16).eval(), SHAPE)]
    assert len(set(classes)) == 4
    assert classes[0] == timing_class(Small().eval(), SHAPE)


@pytest.mark.parametrize("engine", PACKAGES)
def test_what_a_file_is_written_from_is_told_apart_by_operators_and_granularity_alone(engine):
    usual = file_structure(prepared(), engine)
    assert usual == file_structure(prepared(seed=1), engine)
    others = [file_structure(prepared("per_tensor"), engine), file_structure(prepared(off="second"), engine)]
    others.append(file_structure(Small().eval(), engine))
    assert len({usual, *others}) == 4
