"""Each engine tells the operators of a network whose operators are known by hand: formats, kinds, calls and times."""

import time
from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from quant.calibrate import calibrate
from quant.engines import catalog, qnnpack
from quant.engines.exported import ExportedNetwork, export, file_name
from quant.operator_times.gather import FILES, operator_times
from quant.operator_times.operator_time import CONVERSION, FLOAT, INT8, KINDS, OUTSIDE
from quant.recipe import CalibrateSpec
from quant.tracing.trace import fuse_bn

SIZE = 32
MINMAX = CalibrateSpec(activation_range="minmax")


class Known(nn.Module):
    """A 3x3, a depthwise and a 1x1 convolution, a sigmoid, a sum, and a resizing, with or without int8 around it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU())
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.gate = nn.Sigmoid()
        self.last = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        low = self.first(x)
        joined = low + self.gate(self.depthwise(low))
        larger = nn.functional.interpolate(joined, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.last(larger)


CONVOLUTIONS = {"convolution": 1, "depthwise": 1, "linear": 1}


@pytest.fixture(scope="module")
def pictures():
    return torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def float_network(pictures):
    return fuse_bn(Known().eval(), pictures[:1])


@pytest.fixture(scope="module")
def prepared(float_network, pictures):
    return calibrate(float_network, "per_channel", MINMAX, pictures)


def installed(engine: str):
    missing = catalog.missing(engine)
    return pytest.param(engine, marks=pytest.mark.skipif(missing is not None, reason=str(missing)))


def counted(times) -> Counter[str]:
    """Calls of what has weights, by kind."""
    return Counter({kind: sum(one.calls for one in times if one.kind == kind) for kind in CONVOLUTIONS})


def formats(times, kind: str) -> set[str]:
    return {one.number_format for one in times if one.kind == kind}


def test_pytorch_tells_operators_of_an_int8_network_and_where_they_are(prepared, pictures):
    network = qnnpack.convert(prepared)
    hooks = sum(len(module._forward_hooks) for module in network.modules())
    times = operator_times(network, pictures[:1], forwards=3)
    assert counted(times) == CONVOLUTIONS
    assert all(formats(times, kind) == {INT8} for kind in CONVOLUTIONS)
    assert formats(times, "conversion") == {CONVERSION}
    layers = {one.kind: one.layer for one in times}
    assert (layers["convolution"], layers["depthwise"], layers["linear"]) == ("first.0", "depthwise", "last")
    assert sum(len(module._forward_hooks) for module in network.modules()) == hooks, "its hooks are gone"


def test_pytorch_tells_a_float_network_even_where_convolutions_are_functions(pictures):
    class Functional(Known):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + nn.functional.conv2d(x, self.first[0].weight[:4], padding=1).repeat(1, 1, 2, 2)

    times = operator_times(Functional().eval(), pictures[:1], forwards=3)
    assert counted(times) == CONVOLUTIONS | {"convolution": 2}
    assert {one.number_format for one in times if one.kind != OUTSIDE} == {FLOAT}
    assert {one.layer for one in times if one.kind == "convolution"} == {"first.0", ""}


@pytest.mark.parametrize("engine", [installed(engine) for engine in FILES])
def test_an_engine_tells_what_of_its_file_is_int8_float_and_conversion(prepared, pictures, engine, tmp_path):
    path = tmp_path / file_name(engine)
    export(prepared, engine, pictures[:1], path)
    times = operator_times(ExportedNetwork(engine, path), pictures[:1], forwards=3)
    assert times
    assert {one.kind for one in times} <= set(KINDS)
    assert counted(times) == CONVOLUTIONS
    assert all(formats(times, kind) == {INT8} for kind in (*CONVOLUTIONS, "activation"))
    assert formats(times, "conversion") == {CONVERSION}
    assert formats(times, "resize") == {INT8 if engine == "litert" else FLOAT}, "only one engine has it in int8 here"
    assert list(tmp_path.iterdir()) == [path], "nothing is left behind"


@pytest.mark.parametrize("engine", [installed("onnxruntime"), installed("litert")])
def test_a_float_file_has_nothing_in_int8(float_network, pictures, engine, tmp_path):
    path = tmp_path / file_name(engine)
    export(float_network, engine, pictures[:1], path)
    times = operator_times(ExportedNetwork(engine, path), pictures[:1], forwards=3)
    assert counted(times) == CONVOLUTIONS
    assert {one.number_format for one in times if one.kind != OUTSIDE} == {FLOAT}


@pytest.mark.skipif(catalog.missing("xnnpack") is not None, reason=str(catalog.missing("xnnpack")))
def test_a_float_file_of_xnnpack_has_nothing_in_int8_and_operators_outside_of_it_are_told_by_their_names(
    pictures, tmp_path
):
    class Summed(Known):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cumsum(super().forward(x), 1)

    path = tmp_path / file_name("xnnpack")
    export(Summed().eval(), "xnnpack", pictures[:1], path)
    times = operator_times(ExportedNetwork("xnnpack", path), pictures[:1], forwards=3)
    (outside,) = (one for one in times if one.operator.startswith("aten::"))
    assert "cumsum" in outside.operator
    assert outside.us > 0
    assert {one.number_format for one in times if one.kind != OUTSIDE} == {FLOAT}
    assert counted(times) == CONVOLUTIONS


@pytest.mark.skipif(catalog.missing("litert") is not None, reason=str(catalog.missing("litert")))
def test_operators_of_litert_outside_of_xnnpack_are_told_by_their_names(pictures, tmp_path):
    class Gelu(Known):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.GELU()

    path = tmp_path / file_name("litert")
    export(
        calibrate(fuse_bn(Gelu().eval(), pictures[:1]), "per_channel", MINMAX, pictures), "litert", pictures[:1], path
    )
    times = operator_times(ExportedNetwork("litert", path), pictures[:1], forwards=3)
    assert counted(times) == CONVOLUTIONS
    assert [(one.number_format, one.us > 0) for one in times if one.operator == "GELU"] == [(INT8, True)]
    assert formats(times, "elementwise") == {INT8}, "what is behind it is found again"


def test_operators_add_up_to_no_more_than_what_their_forwards_take(float_network):
    image = torch.randn(1, 3, 256, 256)
    started = time.perf_counter()
    times = operator_times(float_network, image, forwards=5)
    whole_us = (time.perf_counter() - started) * 1e6
    assert 0 < 5 * sum(one.us for one in times) < whole_us


@pytest.mark.parametrize("engine", [installed("onnxruntime")])
def test_an_engine_without_a_profiler_does_not_tell(engine, pictures, tmp_path, monkeypatch):
    monkeypatch.delitem(FILES, engine)
    assert operator_times(ExportedNetwork(engine, tmp_path / "network"), pictures[:1]) is None
