"""Branches become the convolution that they are, where that is the same function and no more work."""

import pytest
import timm
import torch
from timm.utils.model import reparameterize_model
from torch import Tensor, nn

from model.network.build import build_network
from model.network.encoder import build_encoder
from model.network.spec import NetworkSpec
from quant.artifact import Form, load_network, read_form, save_network
from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.prepare import quant_convs
from quant.recipe import CalibrateSpec
from quant.tracing.branches import has_branches, merge_branches
from quant.tracing.trace import fuse_bn, trace
from tests.quant.networks import reference, settled, smooth_images

WIDTH = 8


def conv(before: int, after: int, kernel: int = 3, **more: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False, **more)


def normed(before: int, after: int, kernel: int = 3, **more: int) -> nn.Sequential:
    return nn.Sequential(conv(before, after, kernel, **more), nn.BatchNorm2d(after))


class Vgg(nn.Module):
    """RepVGG: 3x3, 1x1 and BatchNorm alone, and the same with a stride and without the last."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.down_1x1 = normed(3, WIDTH, stride=2), normed(3, WIDTH, 1, stride=2)
        self.wide, self.narrow, self.alone = normed(WIDTH, WIDTH), normed(WIDTH, WIDTH, 1), nn.BatchNorm2d(WIDTH)
        self.act = nn.ReLU()
        self.last = nn.Conv2d(WIDTH, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.down(x) + self.down_1x1(x))
        total = 0
        for branch in (self.alone, self.wide, self.narrow):
            total += branch(x)
        return self.last(self.act(total))


class Mixer(nn.Module):
    """FastViT: a skip around scaled differences of depthwise branches, of two kernel sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = normed(3, WIDTH)
        self.mixer, self.small = normed(WIDTH, WIDTH, 5, groups=WIDTH), normed(WIDTH, WIDTH, groups=WIDTH)
        self.norm, self.act = nn.BatchNorm2d(WIDTH), nn.ReLU()
        self.gamma = nn.Parameter(torch.linspace(-1, 1, WIDTH).reshape(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        return self.act(x + self.gamma * (self.mixer(x) + self.small(x) - self.norm(x)))


class Outer(nn.Module):
    """RepViT: BatchNorm behind the sum; and a dense skip around a convolution in two groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = normed(3, WIDTH)
        self.wide, self.narrow = normed(WIDTH, WIDTH, groups=WIDTH), nn.Conv2d(WIDTH, WIDTH, 1, groups=WIDTH)
        self.outer, self.act, self.grouped = nn.BatchNorm2d(WIDTH), nn.ReLU(), normed(WIDTH, WIDTH, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        x = self.act(self.outer(self.wide(x) + self.narrow(x) + x))
        return self.act(self.grouped(x) + x)


class Branch(nn.Module):
    """A sum of ``one`` and ``other`` on the same value."""

    def __init__(self, one: nn.Module, other: nn.Module, reads_branch: bool = False) -> None:
        super().__init__()
        self.stem, self.one, self.other, self.reads_branch = conv(3, WIDTH), one, other, reads_branch

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        branch = self.one(x)
        total = branch + self.other(x)
        return torch.cat([total, branch], 1) if self.reads_branch else total


def convolutions(network: nn.Module) -> dict[str, nn.Conv2d]:
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}


def live_norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.fixture(params=[(Vgg, 3, 0), (Mixer, 2, 1), (Outer, 3, 2)], ids=["Vgg", "Mixer", "Outer"])
def case(request, images) -> tuple[nn.Module, int, int]:
    """A network, and how many convolutions and live BatchNorms it has when it is merged."""
    kind, convs, norms = request.param
    torch.manual_seed(0)
    return settled(kind(), images), convs, norms


def test_a_sum_of_branches_is_one_convolution_of_the_same_function(case, images, fresh_images):
    network, convs, norms = case
    merged = merge_branches(network, images[:1])
    assert (len(convolutions(merged)), live_norms(merged)) == (convs, norms)
    expected = reference(network, fresh_images)
    assert float((reference(merged, fresh_images) - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    assert not merged.training
    assert set(convolutions(merged)) <= set(convolutions(network)), "each has the name of its widest branch"
    assert has_branches(network, images[:1])
    assert not has_branches(merged, images[:1])


def test_the_network_itself_stays(case, images, fresh_images):
    network, *_ = case
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    merge_branches(network, images[:1])
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert list(before) == list(network.state_dict())


@pytest.mark.parametrize("fused", [False, True])
def test_a_merged_network_becomes_int8_with_as_many_convolutions(case, images, fused):
    network, convs, _ = case
    merged = merge_branches(network, images[:1])
    form = fuse_bn(merged) if fused else merged
    prepared = calibrate(form, "per_channel", CalibrateSpec(activation_range="minmax"), images)
    assert len(quant_convs(prepared)) == convs
    int8 = qnnpack.convert(prepared)
    assert sum(isinstance(module, torch.ao.nn.quantized.Conv2d) for module in int8.modules()) == convs


KEPT = {
    "activation between": lambda: Branch(nn.Sequential(conv(WIDTH, WIDTH), nn.ReLU()), conv(WIDTH, WIDTH, 1)),
    "one convolution behind another": lambda: Branch(
        nn.Sequential(conv(WIDTH, WIDTH, 1), conv(WIDTH, WIDTH)), conv(WIDTH, WIDTH)
    ),
    "more weights": lambda: Branch(conv(WIDTH, WIDTH, 3, groups=WIDTH), conv(WIDTH, WIDTH, 1)),
    "even kernel": lambda: Branch(
        nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(WIDTH, WIDTH, 2)), conv(WIDTH, WIDTH)
    ),
    "dilation": lambda: Branch(nn.Conv2d(WIDTH, WIDTH, 3, padding=2, dilation=2), conv(WIDTH, WIDTH)),
    "padding that repeats": lambda: Branch(
        nn.Conv2d(WIDTH, WIDTH, 3, padding=1, padding_mode="reflect"), conv(WIDTH, WIDTH)
    ),
    "a branch that is read elsewhere": lambda: Branch(conv(WIDTH, WIDTH), conv(WIDTH, WIDTH), reads_branch=True),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_is_another_function_or_more_work_stays_as_it_is(name, images):
    torch.manual_seed(0)
    network = settled(KEPT[name](), images)
    assert not has_branches(network, images[:1])
    merged = merge_branches(network, images[:1])
    assert list(convolutions(merged)) == list(convolutions(trace(network, images[:1])))


def test_a_network_without_branches_is_only_traced(depth_network, images, fresh_images):
    assert not has_branches(depth_network, images[:1])
    merged = merge_branches(depth_network, images[:1])
    assert list(merged.state_dict()) == list(trace(depth_network, images[:1]).state_dict())
    assert torch.equal(reference(merged, fresh_images), reference(trace(depth_network, images[:1]), fresh_images))


@pytest.mark.parametrize(
    "name",
    [
        "repvgg_a0",
        "fastvit_t8",
        pytest.param("repvit_m0_9", marks=pytest.mark.slow),
        pytest.param("mobileone_s0", marks=pytest.mark.slow),
    ],
)
def test_encoders_have_as_many_convolutions_as_timms_own_merging_leaves(name):
    images = smooth_images(2, 64)
    encoder = settled(build_encoder(f"timm/{name}", 64), images)
    theirs = timm.create_model(name, features_only=True)
    theirs.load_state_dict(encoder.state_dict(), strict=False)  # a last stage that the encoder leaves out
    merged, expected = merge_branches(encoder, images[:1]), reparameterize_model(theirs.eval())
    assert len(convolutions(merged)) == len(convolutions(expected))
    exact, images = merge_branches(encoder.double(), images[:1].double()), images.double()  # rounding adds up in depth
    with torch.no_grad():
        for ours, before in zip(exact(images), encoder(images), strict=True):
            assert float((ours - before).abs().max()) <= 1e-9 * float(before.abs().max())


def test_a_saved_network_comes_back_merged(tmp_path):
    spec = NetworkSpec("timm/repvgg_a0", 64)
    images = smooth_images(2, 64)
    merged = merge_branches(settled(build_network(spec), images), images[:1])
    form = Form(spec, fused=False, form="float", merged=True)
    save_network(tmp_path, merged, form)
    assert read_form(tmp_path) == form
    assert torch.equal(reference(load_network(tmp_path), images), reference(merged, images))
