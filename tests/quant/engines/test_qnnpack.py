"""The int8 network: equal to its simulation operator by operator, exact after reloading, and known by its hash."""

import copy
import io

import pytest
import torch
from torch import Tensor, fx, nn
from torch.ao.nn.quantized import Conv2d

from model.network.build import build_network
from model.network.spec import NetworkSpec
from model.noise import sqnr_db
from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.fake_quantize import FakeQuantize
from quant.graph import module_of
from quant.prepare import QuantConv, prepare, quant_convs
from quant.recipe import GRANULARITIES, CalibrateSpec
from quant.tracing.trace import fuse_bn
from tests.quant.networks import (
    activation_quantizers,
    freeze_at_unit_ranges_,
    reference,
    settled,
)

MINMAX = CalibrateSpec(activation_range="minmax")

ARMS = [(fused, granularity) for fused in (False, True) for granularity in GRANULARITIES]


class Values(fx.Interpreter):
    """Keeps every quantized value of an int8 network in order."""

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__(network)
        self.int8: list[Tensor] = []

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if isinstance(value, Tensor) and value.is_quantized:
            self.int8.append(value)
        return value


@torch.no_grad()
def steps_between(prepared: fx.GraphModule, int8: fx.GraphModule, images: Tensor) -> dict[str, Tensor]:
    """For every operator the distance of simulation and int8 in steps, both given the same int8 inputs."""
    run = Values(int8)
    run.run(images)
    int8_values = iter(run.int8)
    values: dict[fx.Node, Tensor] = {}
    steps = {}
    for node in prepared.graph.nodes:
        if node.op == "placeholder":
            values[node] = images
        elif node.op != "output":
            args, kwargs = fx.map_arg((node.args, node.kwargs), lambda arg: values[arg])
            module = module_of(prepared, node)
            values[node] = module(*args, **kwargs) if module is not None else node.target(*args, **kwargs)
            if isinstance(module, FakeQuantize):
                got = next(int8_values)
                assert got.q_scale() == pytest.approx(float(module.scale), rel=1e-6)
                assert got.q_zero_point() == int(module.zero_point)
                steps[node.name] = ((values[node] - got.dequantize()) / module.scale).round()
                values[node] = got.dequantize()
    assert next(int8_values, None) is None
    return steps


def test_every_operator_of_the_real_network_is_within_one_step_of_its_simulation(calibrated, int8, fresh_images):
    steps = steps_between(calibrated[False, "per_channel"], int8[False, "per_channel"], fresh_images[:4])
    assert len(steps) > 100
    for name, off in steps.items():
        assert off.abs().max() <= 1, name
        assert (off != 0).float().mean() <= 0.05, name


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_every_kind_of_operator_is_within_one_step_of_its_simulation(all_kinds, images, fresh_images, granularity):
    prepared = calibrate(fuse_bn(all_kinds), granularity, MINMAX, images)
    for name, off in steps_between(prepared, qnnpack.convert(prepared), fresh_images).items():
        assert off.abs().max() <= 1, name
        assert (off != 0).float().mean() <= 0.05, name


@pytest.mark.parametrize("arm", ARMS)
def test_int8_is_closer_to_its_simulation_than_either_is_to_float(depth_network, calibrated, int8, fresh_images, arm):
    expected, simulated, shipped = (
        reference(module, fresh_images) for module in (depth_network, calibrated[arm], int8[arm])
    )
    noise, gap = sqnr_db(expected, simulated), sqnr_db(simulated, shipped)
    assert noise > 15
    assert gap > noise + 1.5
    assert abs(sqnr_db(expected, shipped) - noise) < 1.0, "what is shipped is as good as what was simulated"
    steps = (simulated - shipped) / list(activation_quantizers(calibrated[arm]).values())[-1].scale
    assert steps.abs().max() <= 16
    assert steps.abs().mean() <= 2
    assert steps.mean().abs() <= 0.5, "no drift to one side"


def test_images_are_independent_of_each_other(int8, fresh_images):
    network = int8[True, "per_tensor"]
    one_by_one = torch.cat([reference(network, image[None]) for image in fresh_images])
    assert torch.equal(one_by_one, reference(network, fresh_images))


def test_everything_runs_in_int8_but_silu(int8, calibrated):
    network = int8[False, "per_channel"]
    assert not [module for module in network.modules() if isinstance(module, nn.Conv2d | QuantConv | FakeQuantize)]
    silus = sum(isinstance(module_of(network, node), nn.SiLU) for node in network.graph.nodes)
    dequantized = [node for node in network.graph.nodes if node.target == "dequantize"]
    assert silus > 0
    assert len(dequantized) == silus + 1, "one for each SiLU and one for the output"
    targets = {node.target for node in network.graph.nodes if node.op == "call_function"}
    assert {torch.ops.quantized.add, torch.ops.quantized.mul, torch.ops.quantized.cat} <= targets
    convs = [module for module in network.modules() if isinstance(module, Conv2d)]
    assert len(convs) == len(quant_convs(calibrated[False, "per_channel"]))


@pytest.mark.parametrize("arm", ARMS)
def test_the_integers_of_weights_are_those_of_the_quantizer(calibrated, int8, arm):
    for name, conv in quant_convs(calibrated[arm]).items():
        weight = int8[arm].get_submodule(name).weight()
        quantizer, integers = conv.weight_quantizer, weight.int_repr().int()
        assert integers.min() >= -127, "-128 is no value of a symmetric weight"
        expected = quantizer.quantize(conv.folded()[0])
        # A value in the middle between two integers may fall to either side, as the kernels multiply, not divide.
        differing = integers != expected
        assert (integers - expected).abs().max() <= 1
        assert differing.float().mean() <= 1e-3, name
        if arm[1] == "per_channel":
            assert torch.equal(weight.q_per_channel_scales().float(), quantizer.scale)
            assert (weight.q_per_channel_zero_points() == 0).all()
        else:
            assert weight.q_scale() == pytest.approx(float(quantizer.scale), rel=1e-7)
            assert weight.q_zero_point() == 0


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_the_weights_that_run_are_those_that_were_simulated(calibrated, int8, granularity):
    for name, conv in quant_convs(calibrated[True, granularity]).items():
        simulated = conv.weight_quantizer(conv.folded()[0])
        shipped = int8[True, granularity].get_submodule(name).weight().dequantize()
        assert torch.allclose(simulated, shipped, rtol=1e-5, atol=1e-7), name


@pytest.mark.parametrize("arm", [(False, "per_channel"), (True, "per_tensor")])
def test_the_state_dict_holds_all_that_the_network_needs(depth_network, int8, fresh_images, arm):
    other = prepare(fuse_bn(depth_network) if arm[0] else depth_network, arm[1]).eval()
    freeze_at_unit_ranges_(other)
    reloaded = qnnpack.convert(other)
    assert qnnpack.graph_hash(reloaded) != qnnpack.graph_hash(int8[arm])
    file = io.BytesIO()
    torch.save(int8[arm].state_dict(), file)
    file.seek(0)
    reloaded.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(reference(reloaded, fresh_images), reference(int8[arm], fresh_images))
    assert qnnpack.graph_hash(reloaded) == qnnpack.graph_hash(int8[arm])


def test_sizes_at_224_pixels_are_those_of_the_study():
    def size_mb(network: nn.Module) -> float:
        file = io.BytesIO()
        torch.save(network.state_dict(), file)
        return len(file.getvalue()) / 1e6

    network = build_network(NetworkSpec()).eval()
    fused = fuse_bn(network)
    sizes = {"fp32": size_mb(network), "fused": size_mb(fused)}
    for granularity in GRANULARITIES:
        prepared = prepare(fused, granularity).eval()
        freeze_at_unit_ranges_(prepared)
        sizes[granularity] = size_mb(qnnpack.convert(prepared))
    assert sizes == pytest.approx({"fp32": 5.05, "fused": 4.89, "per_channel": 1.61, "per_tensor": 1.38}, rel=0.02)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_weights_beyond_their_range_are_clipped_as_in_the_simulation(fresh_images, granularity):
    """A range that training or least squares made smaller than the weight ends at -127, never at -128."""
    torch.manual_seed(0)
    prepared = prepare(nn.Sequential(nn.Conv2d(3, 8, 3)).eval(), granularity).eval()
    freeze_at_unit_ranges_(prepared)
    (conv,) = quant_convs(prepared).values()
    size = conv.weight_quantizer.low.shape
    conv.weight_quantizer.set_range(torch.full(size, -0.05), torch.full(size, 0.05))
    integers = qnnpack.convert(prepared).get_submodule("0").weight().int_repr().int()
    assert (integers.min(), integers.max()) == (-127, 127)
    assert torch.equal(integers, conv.weight_quantizer.quantize(conv.conv.weight))


def test_relu_cuts_at_zero_also_where_the_output_range_goes_below(fresh_images):
    torch.manual_seed(0)
    prepared = prepare(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval(), "per_tensor").eval()
    freeze_at_unit_ranges_(prepared)
    shipped = reference(qnnpack.convert(prepared), fresh_images)
    assert shipped.min() == 0.0
    assert shipped.max() > 0.5
    assert (shipped - reference(prepared, fresh_images)).abs().max() <= 1.01 * 2 / 255


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("loudness", [0.3, 20.0])
def test_relu6_is_absorbed_whether_or_not_it_is_reached(images, granularity, loudness):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 4, 1))
    settled(network, images)
    network[1].weight.data *= loudness
    clipped = reference(network[:3], images)
    assert (float(clipped.max()) == 6.0) == (loudness > 1)
    prepared = calibrate(network, granularity, MINMAX, images)
    int8 = qnnpack.convert(prepared)
    run = Values(int8)
    with torch.no_grad():
        run.run(images)
    relu6 = run.int8[1].dequantize()
    assert relu6.min() == 0.0
    assert float(relu6.max()) == pytest.approx(float(clipped.max()), rel=0.02)
    assert sqnr_db(clipped, relu6) > 25
    assert sqnr_db(reference(prepared, images), reference(int8, images)) > 35


class Broadcast(nn.Module):
    """Sums and products of one value with itself, with a number and with its own average."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool, self.relu = nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = x + self.pool(x)
        x = x + x
        x = x * x
        return self.relu(0.5 * x - 1.0)


class TwiceInOne(nn.Module):
    """A concatenation that holds one value twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.last(torch.cat([x, torch.relu(x), x], 1))


@pytest.mark.parametrize("kind", [Broadcast, TwiceInOne], ids=lambda kind: kind.__name__)
def test_operators_with_repeated_broadcast_and_constant_inputs_convert(images, fresh_images, kind):
    torch.manual_seed(0)
    network = kind().eval()
    prepared = calibrate(network, "per_channel", MINMAX, images)
    simulated = reference(prepared, fresh_images)
    assert sqnr_db(reference(network, fresh_images), simulated) > 20
    assert sqnr_db(simulated, reference(qnnpack.convert(prepared), fresh_images)) > 30


class Scaled(nn.Module):
    """A parameter that no layer owns, and an addition of values of unlike size."""

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.conv, self.gamma = nn.Conv2d(3, 3, 1), nn.Parameter(torch.full((3, 1, 1), gamma))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) * self.gamma.abs()


@pytest.mark.parametrize("gamma", [1.0, 1e-6])
def test_free_parameters_and_unlike_scales_are_computed_in_float(images, gamma):
    """QNNPACK adds no values of which one is 2 ** 14 times as fine as the sum."""
    prepared = calibrate(Scaled(gamma).eval(), "per_channel", MINMAX, images)
    int8 = qnnpack.convert(prepared)
    assert sum(node.target is torch.ops.quantized.add for node in int8.graph.nodes) == (gamma == 1.0)
    assert sqnr_db(reference(prepared, images), reference(int8, images)) > 40


def test_an_engine_that_this_pytorch_lacks_is_named_with_what_it_offers(kinds):
    with pytest.raises(RuntimeError, match=r"this PyTorch has no nonesuch; it offers .*qnnpack"):
        qnnpack.convert(kinds, "nonesuch")


def test_converting_selects_the_engine(kinds):
    before = torch.backends.quantized.engine
    try:
        torch.backends.quantized.engine = next(e for e in torch.backends.quantized.supported_engines if e != "qnnpack")
        qnnpack.convert(kinds)
        assert torch.backends.quantized.engine == "qnnpack"
    finally:
        torch.backends.quantized.engine = before


def test_a_network_that_was_trained_on_another_device_type_is_brought_to_the_cpu(kinds, fresh_images):
    """Packed weights exist on the CPU only; double precision stands in for another device."""
    double = qnnpack.convert(copy.deepcopy(kinds).double())
    assert torch.allclose(reference(double, fresh_images), reference(qnnpack.convert(kinds), fresh_images), atol=0.1)
