import pytest
import timm
import torch
from torch import nn

from model.errors import InputError
from model.network.build import build_network
from model.network.depth_network import probe_stages
from model.network.encoder import build_encoder
from model.network.spec import NetworkSpec
from tests.model.network.test_depth_network import trained_look_

SIZE = 64
FAMILY = ("timm/efficientnet_b0", "timm/tf_efficientnet_lite0", "timm/mobilenetv3_small_100", "timm/efficientnet_es")
OTHERS = ("timm/mobilenetv4_conv_small", "timm/resnet18", "timm/regnety_002")
ACTIVATIONS = (nn.SiLU, nn.ReLU, nn.ReLU6, nn.Hardswish)


@pytest.fixture
def images():
    return torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def raw_features(
    name: str, weights_from: nn.Module, images: torch.Tensor, picks: tuple[int, ...]
) -> list[torch.Tensor]:
    """The stages of timm's own, unrewritten model with the weights of our encoder, taken over in their order."""
    model = timm.create_model(name).eval()
    pieces = [nn.Sequential(model.conv_stem, model.bn1), *model.blocks]
    raw = [tensor for piece in pieces[: picks[-1] + 1] for tensor in piece.state_dict().values()]
    ours = list(weights_from.state_dict().values())
    assert [tensor.shape for tensor in raw] == [tensor.shape for tensor in ours]
    outputs = []
    with torch.no_grad():
        for to, source in zip(raw, ours, strict=True):
            to.copy_(source)
        for piece in pieces:
            images = piece(images)
            outputs.append(images.clone())
    return [outputs[pick] for pick in picks]


def test_timm_and_torchvision_b0_give_equal_features_for_equal_weights(images):
    ours, theirs = build_encoder("efficientnet_b0", SIZE), build_encoder("timm/efficientnet_b0", SIZE)
    trained_look_(ours)
    theirs.load_state_dict(ours.state_dict())
    with torch.no_grad():
        for one, other in zip(ours(images), theirs.eval()(images), strict=True):
            assert float((one - other).abs().max()) <= 1e-5


def test_timm_and_torchvision_b0_networks_have_equal_tensors():
    ours = build_network(NetworkSpec("efficientnet_b0", SIZE)).state_dict()
    theirs = build_network(NetworkSpec("timm/efficientnet_b0", SIZE)).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


@pytest.mark.parametrize(
    ("name", "picks"),
    [
        ("efficientnet_b0", (2, 3, 4, 5)),
        ("tf_efficientnet_lite0", (2, 3, 4, 5)),
        ("mobilenetv3_small_100", (1, 2, 3, 4)),
        ("efficientnet_es", (2, 3, 4, 5)),
    ],
)
@pytest.mark.parametrize("size", [64, 96])
def test_rewriting_keeps_the_function_of_timms_model(name, picks, size):
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    encoder = trained_look_(build_encoder(f"timm/{name}", size))
    with torch.no_grad():
        ours = encoder(images)
    for one, other in zip(ours, raw_features(name, encoder, images, picks), strict=True):
        assert one.shape == other.shape
        assert float((one - other).abs().max()) <= 1e-5 * max(1.0, float(other.abs().max()))


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("timm/efficientnet_b0", [(24, 56), (40, 28), (80, 14), (112, 14)]),
        ("timm/tf_efficientnet_lite0", [(24, 56), (40, 28), (80, 14), (112, 14)]),
        ("timm/mobilenetv3_small_100", [(16, 56), (24, 28), (40, 14), (48, 14)]),
        ("timm/resnet18", [(64, 56), (128, 28), (256, 14), (512, 7)]),
    ],
)
def test_stages_are_taken_at_strides_4_8_16_and_beyond(name, stages):
    assert [(s.channels, s.size) for s in probe_stages(build_encoder(name, 224), 224)] == stages


@pytest.mark.parametrize("name", FAMILY)
def test_the_efficientnet_family_is_rewritten_whole(name):
    assert [
        module for module in build_encoder(name, SIZE).modules() if type(module).__module__.startswith("timm")
    ] == []


@pytest.mark.parametrize("name", ["efficientnet_b0", *FAMILY, *OTHERS])
def test_convolution_batch_norm_and_activation_are_plain_and_consecutive(name):
    traced = torch.fx.symbolic_trace(build_encoder(name, SIZE))
    modules = dict(traced.named_modules())
    used = [node for node in traced.graph.nodes if node.op == "call_module"]
    kinds = {type(modules[node.target]) for node in used}
    assert nn.Identity not in kinds
    assert all(kind.__module__.startswith("torch.nn.") for kind in kinds)
    norms = [node for node in used if isinstance(modules[node.target], nn.BatchNorm2d)]
    assert norms
    followers = 0
    for node in norms:
        assert type(modules[node.args[0].target]) is nn.Conv2d
        assert list(node.args[0].users) == [node]
        followers += any(
            user.op == "call_module" and isinstance(modules[user.target], ACTIVATIONS) for user in node.users
        )
    assert followers >= len(norms) // 3


@pytest.mark.parametrize("name", ["efficientnet_b0", *FAMILY, *OTHERS])
def test_a_network_traces_trains_and_works_not_in_place(name, images):
    network = build_network(NetworkSpec(name, SIZE))
    assert network.training
    assert not [module for module in network.modules() if getattr(module, "inplace", False)]
    norm = next(module for module in network.encoder.modules() if isinstance(module, nn.BatchNorm2d))
    before = norm.running_mean.clone()
    network(images).square().mean().backward()
    assert not torch.equal(before, norm.running_mean)
    assert all(parameter.grad is not None for parameter in network.encoder.parameters())
    with torch.no_grad():
        assert torch.equal(torch.fx.symbolic_trace(network.eval())(images), network(images))


def test_same_padding_becomes_an_explicit_pad_before_a_plain_convolution():
    encoder = build_encoder("timm/tf_efficientnet_lite0", SIZE)
    pads = [tuple(module.padding) for module in encoder.modules() if isinstance(module, nn.ZeroPad2d)]
    assert pads == [(0, 1, 0, 1), (0, 1, 0, 1), (1, 2, 1, 2), (0, 1, 0, 1)]


@pytest.mark.parametrize("name", ["timm/mobilevit_xxs", "timm/edgenext_xx_small", "timm/efficientvit_b0"])
def test_an_encoder_that_reads_sizes_is_a_graph_of_constants(name):
    encoder = build_encoder(name, SIZE)
    assert isinstance(encoder, torch.fx.GraphModule)
    assert encoder.training
    for count in (1, 3):
        features = encoder.eval()(torch.randn(count, 3, SIZE, SIZE))
        assert [feature.shape[0] for feature in features] == [count] * 4
        assert [SIZE // feature.shape[2] for feature in features][:3] == [4, 8, 16]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("timm/vit_tiny_patch16_224", "stages at strides 16"),
        ("timm/swin_tiny_patch4_window7_224", "gives"),
    ],
)
def test_an_encoder_that_does_not_fit_says_why(name, reason):
    with pytest.raises(InputError, match=rf"{name}.*{reason}"):
        build_encoder(name, SIZE)


def test_an_unknown_timm_name_suggests_the_nearest():
    with pytest.raises(InputError, match=r"timm/tf_efficientnet_lite00.*Did you mean timm/tf_efficientnet_lite0\?"):
        build_encoder("timm/tf_efficientnet_lite00", SIZE)


def test_an_unknown_encoder_names_the_value():
    with pytest.raises(InputError, match="'alexnet'"):
        build_encoder("alexnet", SIZE)
