"""Where quantizers stand, and that a QuantConv computes what its convolution and BatchNorm did."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.errors import InputError
from model.noise import sqnr_db
from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.fake_quantize import FakeQuantize
from quant.graph import UnsupportedNetworkError, is_linear_in_place, module_of
from quant.prepare import QuantConv, elementwise_consumers, prepare, quant_convs, quantizers
from quant.recipe import GRANULARITIES, CalibrateSpec
from quant.tracing.trace import fuse_bn
from tests.quant.networks import (
    ReluPair,
    activation_quantizers,
    noise,
    reference,
    same_tensors,
    settled,
    weight_quantizers,
)


@pytest.fixture(params=["depth_network", "all_kinds", "relu_pair"])
def network(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_with_all_quantizers_off_the_function_is_that_of_the_float_network(network, fresh_images, fused, granularity):
    source = fuse_bn(network) if fused else network
    prepared = prepare(source, granularity)
    assert {quantizer.mode for quantizer in quantizers(prepared).values()} == {"off"}
    assert torch.allclose(reference(prepared, fresh_images), reference(source, fresh_images), atol=1e-5)


def test_with_all_quantizers_off_training_is_that_of_the_float_network(relu_pair, images):
    """Where the running statistics are those of the batch: then batch renormalization is BatchNorm."""
    plain = copy.deepcopy(relu_pair).train()
    for norm in (plain.bn, plain.bn2):
        norm.momentum = 1.0
    with torch.no_grad():
        plain(images)
    prepared = prepare(plain, "per_channel").train()
    expected, output = plain(images), prepared(images)
    assert torch.allclose(output, expected, atol=1e-4)
    expected.square().mean().backward()
    output.square().mean().backward()
    gradients = {name.replace("conv.", ""): parameter.grad for name, parameter in prepared.named_parameters()}
    assert noise(gradients["first.weight"], plain.first.weight.grad) < 1e-2
    assert noise(gradients["first.bn.weight"], plain.bn.weight.grad) < 1e-2
    assert torch.allclose(quant_convs(prepared)["first"].bn.running_var, plain.bn.running_var, atol=1e-5)


def test_granularity_is_that_of_the_weight_quantizers_and_of_nothing_else(network):
    one, other = prepare(network, "per_channel"), prepare(network, "per_tensor")
    assert str(one.graph) == str(other.graph)
    twins, conv_twins = quantizers(other), quant_convs(other)
    assert quantizers(one).keys() == twins.keys()
    for name, quantizer in activation_quantizers(one).items():
        twin = twins[name]
        assert not quantizer.per_channel
        assert not twin.per_channel
        assert (quantizer.fixed, quantizer.limit, quantizer.scale.shape) == (twin.fixed, twin.limit, twin.scale.shape)
    for name, conv in quant_convs(one).items():
        assert conv.weight_quantizer.scale.shape == (conv.conv.out_channels,)
        assert conv_twins[name].weight_quantizer.scale.shape == (1,)
        assert (conv.weight_quantizer.quant_min, conv.weight_quantizer.quant_max) == (-127, 127)
    kept, twin_kept = (
        {name: value for name, value in item.state_dict().items() if "weight_quantizer" not in name}
        for item in (one, other)
    )
    assert same_tensors(kept, twin_kept)


def test_every_value_between_operators_passes_one_quantizer(network):
    prepared = prepare(network, "per_channel")
    operators = 0
    for node in prepared.graph.nodes:
        if node.op in ("output", "get_attr") or isinstance(module_of(prepared, node), FakeQuantize):
            continue
        operators += 1
        (user,) = node.users
        assert isinstance(module_of(prepared, user), FakeQuantize), f"{node} goes on without a quantizer"
    assert operators == sum(isinstance(module_of(prepared, node), FakeQuantize) for node in prepared.graph.nodes)


def test_resizing_and_pooling_share_the_quantizer_of_their_input_and_others_have_their_own(network):
    prepared = prepare(network, "per_channel")
    owners: dict[str, list] = {}
    for node in prepared.graph.nodes:
        if isinstance(module_of(prepared, node), FakeQuantize):
            owners.setdefault(str(node.target), []).append(node.args[0])
    for name, producers in owners.items():
        first, *rest = producers
        assert not is_linear_in_place(prepared, first)
        for node in rest:
            assert is_linear_in_place(prepared, node)
            assert node.args[0].target in owners
            assert str(node.args[0].target) == name
    assert set(owners) == set(activation_quantizers(prepared))


def test_clamps_are_absorbed_and_relu6_limits_its_quantizer(all_kinds):
    prepared = prepare(all_kinds, "per_tensor")
    assert not [module for module in prepared.modules() if isinstance(module, nn.ReLU | nn.ReLU6)]
    limits = {name: conv.limit for name, conv in quant_convs(prepared).items()}
    assert limits["depthwise"] == 6.0
    assert limits["one"] == limits["other"] == limits["gate.squeeze"] == float("inf")
    assert limits["stem"] is None, "SiLU is no clamp"
    assert limits["head"] is None
    limited = {name for name, quantizer in quantizers(prepared).items() if quantizer.limit is not None}
    assert limited == {"quantizers.depthwise"}


def test_every_module_has_one_place(network):
    """A BatchNorm that stayed at its old place too would be woken there by train(), and be saved twice."""
    prepared = prepare(network, "per_channel")
    places = [name for name, _ in prepared.named_modules(remove_duplicate=False)]
    assert places == [name for name, _ in prepared.named_modules()]


def test_the_sigmoid_has_the_fixed_output_of_the_int8_kernel(all_kinds):
    prepared = prepare(all_kinds, "per_tensor")
    fixed = {name: q for name, q in quantizers(prepared).items() if q.fixed}
    assert list(fixed) == ["quantizers.gate_sigmoid"]
    (quantizer,) = fixed.values()
    assert (float(quantizer.scale), int(quantizer.zero_point)) == (1 / 256, 0)


def test_an_unknown_granularity_is_named(relu_pair):
    with pytest.raises(InputError, match=r"granularity: 'per_chanel' is unknown; expected one of per_channel"):
        prepare(relu_pair, "per_chanel")


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_in_eval_mode_a_live_batchnorm_computes_the_folded_convolution(relu_pair, images, granularity):
    live, folded = prepare(relu_pair, granularity).eval(), prepare(fuse_bn(relu_pair), granularity).eval()
    for prepared in (live, folded):
        for conv in quant_convs(prepared).values():
            conv.weight_quantizer.set_range_from_weight(conv.folded()[0], "minmax")
            conv.weight_quantizer.set_mode("freeze")
    with torch.no_grad():
        assert torch.equal(live(images), folded(images))
        assert not torch.equal(live(images), relu_pair(images)), "weights are rounded"


def test_in_train_mode_the_rounded_weight_is_the_folded_one(relu_pair, images):
    """Rounding sees the weight with the running statistics, and so does what comes behind it, as in int8."""
    conv = prepare(relu_pair, "per_channel").train().get_submodule("first")
    conv.weight_quantizer.set_range_from_weight(conv.folded()[0], "minmax")
    conv.weight_quantizer.set_mode("freeze")
    seen: list[Tensor] = []
    conv.weight_quantizer.register_forward_hook(lambda module, given, out: seen.extend([given[0], out]))
    folded = conv.folded()[0].detach().clone()
    bias = conv.folded()[1].detach().clone()
    with torch.no_grad():
        out = conv(images)
        expected = F.relu(F.conv2d(images, seen[1], bias, padding=1))
    assert torch.allclose(seen[0], folded, atol=1e-6)
    assert torch.allclose(out, expected, atol=1e-4)


def test_batchnorm_statistics_move_in_training_until_they_are_frozen(relu_pair, images):
    prepared = prepare(relu_pair, "per_channel").train()
    norm = quant_convs(prepared)["first"].bn

    def step() -> tuple[Tensor, Tensor]:
        prepared(3 * images + 1)
        return norm.running_mean.clone(), norm.running_var.clone()

    before = norm.running_mean.clone(), norm.running_var.clone()
    moved = step()
    assert all(not torch.equal(a, b) for a, b in zip(before, moved, strict=True))
    for conv in quant_convs(prepared).values():
        conv.freeze_bn_()
    assert all(torch.equal(a, b) for a, b in zip(step(), moved, strict=True))
    prepared.eval()
    prepared.train()
    assert prepared.training
    assert not norm.training, "train() wakes no frozen statistics"
    assert all(torch.equal(a, b) for a, b in zip(step(), moved, strict=True))
    assert norm.weight.requires_grad, "factor and shift still learn"


def test_frozen_statistics_give_train_mode_the_function_of_eval_mode(relu_pair, images):
    prepared = prepare(relu_pair, "per_channel")
    for conv in quant_convs(prepared).values():
        conv.freeze_bn_()
    with torch.no_grad():
        assert torch.equal(prepared.train()(images), prepared.eval()(images))


def test_freezing_a_convolution_without_batchnorm_does_nothing(relu_pair, images):
    prepared = prepare(fuse_bn(relu_pair), "per_channel").train()
    before = reference(prepared, images)
    for conv in quant_convs(prepared).values():
        conv.freeze_bn_()
    assert torch.equal(reference(prepared, images), before)


def test_a_channel_whose_batchnorm_factor_is_zero_gives_its_shift_and_a_finite_gradient(images):
    network = settled(ReluPair(), images)
    with torch.no_grad():
        network.bn.weight[2] = 0.0
    for mode in ("off", "moving_average"):
        conv = prepare(network, "per_channel").train().get_submodule("first")
        conv.weight_quantizer.set_mode(mode)
        out = conv(images)
        shift = network.bn.bias[2].clamp_min(0).expand_as(out[:, 2])
        assert torch.allclose(out[:, 2], shift, atol=1e-5)
        out.square().mean().backward()
        assert all(torch.isfinite(parameter.grad).all() for parameter in conv.parameters())


@pytest.mark.parametrize("padding_mode", ["reflect", "replicate", "circular"])
def test_padding_other_than_zeros_is_refused_or_kept(images, padding_mode):
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode=padding_mode), nn.ReLU()).eval()
    try:
        prepared = prepare(network, "per_channel")
    except UnsupportedNetworkError:
        return
    assert torch.allclose(reference(prepared, images), reference(network, images), atol=1e-5)


@pytest.mark.parametrize("options", [{"stride": 2, "padding": 2}, {"dilation": 2}, {"padding": (0, 1)}, {"groups": 3}])
def test_all_options_of_a_convolution_are_kept(images, options):
    network = nn.Sequential(nn.Conv2d(3, 6, 3, **options), nn.BatchNorm2d(6), nn.ReLU6())
    settled(network, images)
    assert torch.allclose(reference(prepare(network, "per_tensor"), images), reference(network, images), atol=1e-5)


class Readers(nn.Module):
    """One convolution that SiLU alone reads, and one that SiLU reads behind a pool while an addition reads it too."""

    def __init__(self) -> None:
        super().__init__()
        self.alone, self.shared = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.silu, self.pool = nn.SiLU(), nn.AvgPool2d(3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(self.silu(self.alone(x)))
        return self.silu(self.pool(x)) + x


def test_a_range_is_judged_behind_an_activation_only_where_nothing_else_reads_the_value():
    readers = elementwise_consumers(prepare(Readers(), "per_channel"))
    assert isinstance(readers.get("quantizers.alone"), nn.SiLU)
    assert "quantizers.shared" not in readers


def test_quantizers_and_convolutions_are_listed_by_name(all_kinds):
    prepared = prepare(all_kinds, "per_channel")
    assert set(weight_quantizers(prepared)) == {f"{name}.weight_quantizer" for name in quant_convs(prepared)}
    assert all(isinstance(conv, QuantConv) for conv in quant_convs(prepared).values())
    assert len(quant_convs(prepared)) == sum(isinstance(m, nn.Conv2d) for m in all_kinds.modules())


class Stream(nn.Module):
    """Sums that only norms and sums read, of which one channel is far larger; the last is read by ``behind``."""

    def __init__(self, behind: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 1)
        self.blocks = nn.ModuleList(nn.Conv2d(8, 8, 1) for _ in range(3))
        self.norms = nn.ModuleList(nn.GroupNorm(8, 8) for _ in range(3))
        self.behind = behind
        self.offset = nn.Parameter(torch.eye(8)[0].reshape(1, 8, 1, 1) * 50.0)

    def forward(self, x):
        x = self.stem(x) + self.offset
        for norm, block in zip(self.norms, self.blocks, strict=True):
            x = x + block(norm(x))
        return self.last(self.behind(x))


@pytest.mark.parametrize(("behind", "rounded"), [(nn.GroupNorm(8, 8), 0), (nn.SiLU(), 4), (nn.Identity(), 4)])
def test_sums_that_nothing_reads_in_int8_stay_in_float(behind, rounded, images):
    prepared = prepare(fuse_bn(Stream(behind).eval(), images[:1]), "per_channel")
    assert sum("add" in name for name in quantizers(prepared)) == rounded


def test_a_large_channel_of_the_residual_stream_does_not_drown_the_others(images):
    network = Stream(nn.GroupNorm(8, 8)).eval()
    prepared = calibrate(fuse_bn(network, images[:1]), "per_channel", CalibrateSpec(), images)
    int8 = qnnpack.convert(prepared)
    with torch.no_grad():
        exact = network(images)
        assert sqnr_db(exact, prepared(images)) > 18  # 11 with rounded sums
        assert sqnr_db(exact, int8(images)) > 18
