"""The contract that every step keeps, and the rules of tracing and of folding BatchNorm."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant.bias_correction import correct_bias
from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.equalization.equalize import equalize
from quant.graph import UnsupportedNetworkError, conv_blocks
from quant.prepare import prepare
from quant.qat.finetune import prepare_for_qat
from quant.recipe import BiasCorrectionSpec, CalibrateSpec, EqualizeSpec
from quant.tracing.trace import fuse_bn, trace
from tests.quant.networks import ReluPair, frozen_state, reference, same_tensors, settled

CALIBRATE = CalibrateSpec(activation_range="minmax")
FLOAT_STEPS = {
    "trace": lambda network, images: trace(network),
    "fuse_bn": lambda network, images: fuse_bn(network),
    "equalize_weights": lambda network, images: equalize(network, EqualizeSpec("weights"), images, "per_channel"),
    "equalize_activations": lambda network, images: equalize(
        network, EqualizeSpec("activations"), images, "per_channel"
    ),
}
STEPS = {
    **FLOAT_STEPS,
    "prepare_per_channel": lambda network, images: prepare(network, "per_channel"),
    "prepare_per_tensor": lambda network, images: prepare(network, "per_tensor"),
    "prepare_for_qat": lambda network, images: prepare_for_qat(network, "per_channel", CALIBRATE).eval(),
    "calibrate_per_channel": lambda network, images: calibrate(network, "per_channel", CALIBRATE, images),
    "calibrate_per_tensor": lambda network, images: calibrate(network, "per_tensor", CALIBRATE, images),
    "correct_bias": lambda prepared, images: correct_bias(prepared, BiasCorrectionSpec(), images),
    "convert": lambda prepared, images: qnnpack.convert(prepared),
}


PREPARED_STEPS = ("correct_bias", "convert")


class Chain(nn.Module):
    """Modules one after the other, under their numbers."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*modules)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@pytest.fixture(params=["depth_network", "all_kinds"])
def network(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def source(request, network, images):
    """What a step starts from: a float network, or for convert a calibrated one."""
    return calibrate(network, "per_channel", CALIBRATE, images[:4]) if request.param in PREPARED_STEPS else network


def pointers(module: nn.Module) -> set[int]:
    return {tensor.data_ptr() for tensor in (*module.parameters(), *module.buffers())}


@pytest.mark.parametrize(("source", "step"), [(name, name) for name in STEPS], indirect=["source"])
def test_every_step_leaves_its_input_alone_keeps_the_shape_and_is_deterministic(source, step, images):
    before_tensors, before_modes = frozen_state(source)
    given = images[:4].clone()
    one, other = STEPS[step](source, given), STEPS[step](source, given)
    after_tensors, after_modes = frozen_state(source)
    assert torch.equal(given, images[:4])
    assert same_tensors(before_tensors, after_tensors)
    assert before_modes == after_modes
    assert not pointers(source) & pointers(one), "the result shares tensors with the input"
    expected, first, second = (reference(module, images[:4]) for module in (source, one, other))
    assert first.shape == expected.shape
    assert torch.isfinite(first).all()
    assert torch.equal(first, second)
    if step == "convert":
        assert qnnpack.graph_hash(one) == qnnpack.graph_hash(other)
    else:
        assert same_tensors(one.state_dict(), other.state_dict())


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("step", FLOAT_STEPS)
def test_float_steps_keep_the_float_function(network, images, fresh_images, step, fused):
    before = fuse_bn(network) if fused else network
    after = FLOAT_STEPS[step](before, images)
    expected = reference(network, fresh_images)
    assert expected.std() > 0.05
    assert (reference(after, fresh_images) - expected).abs().max() <= 1e-4


def test_tracing_keeps_names_and_drops_dropout_and_identities(all_kinds, images):
    network = Chain(nn.Conv2d(3, 4, 1), nn.Identity(), nn.BatchNorm2d(4), nn.Dropout2d(0.5), nn.ReLU()).eval()
    traced = trace(network)
    assert [type(m).__name__ for m in traced.modules() if not list(m.children())] == ["Conv2d", "BatchNorm2d", "ReLU"]
    assert set(traced.state_dict()) == set(network.state_dict())
    assert set(trace(all_kinds).state_dict()) == set(all_kinds.state_dict())
    (block,) = conv_blocks(traced)
    assert block.bn is not None, "an identity hides the BatchNorm"
    assert torch.equal(trace(network).train().eval()(images), reference(network, images))


def test_a_traced_network_is_copied_and_not_traced_again(relu_pair):
    traced = trace(relu_pair)
    again = trace(traced)
    assert again is not traced
    assert str(again.graph) == str(traced.graph)


def test_a_network_that_branches_on_values_is_refused_by_name():
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(UnsupportedNetworkError, match="Branching"):
        trace(Branching())


def test_every_convolution_of_the_network_has_its_batchnorm(depth_network):
    blocks = conv_blocks(trace(depth_network))
    norms = [module for module in depth_network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert sum(block.bn is not None for block in blocks) == len(norms)
    without = {str(block.conv.target) for block in blocks if block.bn is None}
    assert all("fc1" in name or "fc2" in name or name == "head.layers.1" for name in without)


def test_no_batchnorm_is_left_behind_a_convolution_after_fusing(depth_network):
    fused = fuse_bn(depth_network)
    assert not [module for module in fused.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(conv.bias is not None for conv in fused.modules() if isinstance(conv, nn.Conv2d))


def test_fusing_twice_changes_nothing(relu_pair):
    once = fuse_bn(relu_pair)
    assert same_tensors(once.state_dict(), fuse_bn(once).state_dict())


def test_fused_weights_can_be_trained(relu_pair):
    assert all(parameter.requires_grad for parameter in fuse_bn(relu_pair).parameters())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("gamma", [1.3, -0.7, 0.0])
def test_folding_is_right_for_positive_negative_and_zero_factors(images, bias, gamma):
    network = settled(Chain(nn.Conv2d(3, 4, 3, bias=bias), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)), images)
    with torch.no_grad():
        network.layers[1].weight[1] = gamma
    fused = fuse_bn(network)
    assert all(torch.isfinite(value).all() for value in fused.state_dict().values())
    assert torch.allclose(reference(fused, images), reference(network, images), atol=1e-5)


def test_a_convolution_that_others_read_too_keeps_its_batchnorm(images):
    class Tapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn, self.last = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return self.last(self.bn(x) + x)

    network = settled(Tapped(), images)
    fused = fuse_bn(network)
    assert [m for m in fused.modules() if isinstance(m, nn.BatchNorm2d)]
    assert torch.allclose(reference(fused, images), reference(network, images), atol=1e-5)


@pytest.mark.parametrize("step", ["fuse_bn", "equalize_weights", "equalize_activations", "prepare_per_channel"])
def test_a_convolution_that_is_called_twice_is_refused_or_treated_right(images, step):
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv, self.bn = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
            self.relu, self.last = nn.ReLU(), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.relu(self.stem(x))
            for _ in range(2):
                x = self.relu(self.bn(self.conv(x)))
            return self.last(x)

    network = settled(Twice(), images)
    try:
        changed = STEPS[step](network, images)
    except UnsupportedNetworkError:
        return
    assert torch.allclose(reference(changed, images), reference(network, images), atol=1e-4)


def test_one_activation_module_may_serve_several_places(images):
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList([nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)])
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            for conv in self.convs:
                x = self.relu(conv(x))
            return x

    network = Shared().eval()
    for step in ("equalize_weights", "prepare_per_channel"):
        assert torch.allclose(reference(STEPS[step](network, images), images), reference(network, images), atol=1e-5)


def test_functional_activations_are_kept(images):
    class Functional(ReluPair):
        def forward(self, x: Tensor) -> Tensor:
            return self.last(F.relu(self.bn(self.first(x))))

    network = settled(Functional(), images)
    assert torch.allclose(reference(fuse_bn(network), images), reference(network, images), atol=1e-5)
