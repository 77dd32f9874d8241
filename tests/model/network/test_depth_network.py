import io

import pytest
import torch
from torch import nn
from torch.nn import functional

from model.errors import InputError
from model.images import IMAGENET_MEAN, IMAGENET_STD, normalize
from model.network.build import build_network
from model.network.depth_network import probe_stages
from model.network.spec import NetworkSpec

SMALL = NetworkSpec(input_size=64)


def trained_look_(network: nn.Module) -> nn.Module:
    """Give every batch norm statistics and factors of its own, so that no layer is near the identity."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(module.bias, -0.5, 0.5, generator=generator)
            module.running_mean.uniform_(-0.3, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return network.eval()


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return trained_look_(build_network(SMALL))


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_the_default_network_has_the_parameters_of_the_study():
    network = build_network(NetworkSpec())
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_219_681


def test_the_saved_float_state_dict_has_the_size_of_the_study():
    buffer = io.BytesIO()
    torch.save(build_network(NetworkSpec()).state_dict(), buffer)
    assert len(buffer.getvalue()) / 1e6 == pytest.approx(5.05, rel=0.02)


def test_the_encoder_gives_the_stages_of_the_study():
    stages = probe_stages(build_network(NetworkSpec()).encoder, 224)
    assert [(stage.channels, stage.size) for stage in stages] == [(24, 56), (40, 28), (80, 14), (112, 14)]


def test_probing_leaves_mode_and_statistics_alone(images):
    network = build_network(SMALL)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    probe_stages(network.encoder, 64)
    assert network.encoder.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("size", [32, 64, 96])
def test_depth_has_a_quarter_of_the_input_size(size):
    network = build_network(NetworkSpec(input_size=size)).eval()
    with torch.no_grad():
        depth = network(torch.zeros(2, 3, size, size))
    assert depth.shape == (2, 1, size // 4, size // 4)
    assert NetworkSpec(input_size=size).output_size == size // 4


def test_names_are_those_of_the_study():
    names = set(build_network(SMALL).state_dict())
    for name in (
        "encoder.layer0.0.0.weight",
        "encoder.layer0.1.0.block.0.1.running_var",
        "encoder.layer0.2.1.block.2.fc1.bias",
        "encoder.layer1.0.block.0.0.weight",
        "encoder.layer2.2.block.3.0.weight",
        "encoder.layer3.2.block.3.1.weight",
        *(f"decoder.layers.0.adapter_conv.{i}.layers.0.weight" for i in range(4)),
        *(f"decoder.layers.1.fam_{s}_{k}.layers.1.bias" for s in (8, 16, 32) for k in ("sm", "up")),
        "decoder.layers.1.fam_4.layers.0.weight",
        "head.layers.0.layers.0.weight",
        "head.layers.1.bias",
    ):
        assert name in names
    assert not any(name.startswith("decoder.layers.2") for name in names)
    assert not any(name.startswith("decoder") and name.endswith("layers.0.bias") for name in names)


def test_the_decoder_adds_coarse_to_fine_and_concatenates_all_levels(small, images):
    def up(features, size):
        return functional.interpolate(features, size=size, mode="bilinear", align_corners=True)

    adapter, branch, _ = small.decoder.layers
    with torch.no_grad():
        fine, mid, coarse, coarsest = (
            layer(stage) for layer, stage in zip(adapter.adapter_conv, small.encoder(images), strict=True)
        )
        coarse = coarse + branch.fam_32_up(coarsest)
        mid = mid + up(branch.fam_16_up(coarse), 8)
        fine = fine + up(branch.fam_8_up(mid), 16)
        levels = [branch.fam_4(fine), branch.fam_8_sm(mid), branch.fam_16_sm(coarse), branch.fam_32_sm(coarsest)]
        expected = small.head(torch.cat([up(level, 16) for level in levels], dim=1))
        assert torch.allclose(small(images), expected, atol=1e-5)


def test_the_traced_network_gives_the_same_depth(small, images):
    with torch.no_grad():
        assert torch.equal(torch.fx.symbolic_trace(small)(images), small(images))


def test_the_graph_is_static(small):
    graph = torch.fx.symbolic_trace(small).graph
    functions = [node for node in graph.nodes if node.op == "call_function"]
    sizes = [node.kwargs["size"] for node in functions if node.target is functional.interpolate]
    assert sizes == [(8, 8), (16, 16), (16, 16), (16, 16), (16, 16)]
    assert sum(node.target is torch.cat for node in functions) == 1
    assert not [node for node in graph.nodes if node.op == "call_method" or node.target is getattr]


def test_nothing_works_in_place_or_drops_paths(small):
    kinds = {type(module).__name__ for module in small.modules()}
    assert not kinds & {"StochasticDepth", "Dropout", "MBConv", "Identity"}
    assert not [module for module in small.modules() if getattr(module, "inplace", False)]


def test_the_input_stays_untouched(small, images):
    before = images.clone()
    with torch.no_grad():
        small(images)
    assert torch.equal(before, images)


def test_gradients_reach_every_parameter(images):
    network = build_network(SMALL)
    network(images).square().mean().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


def test_one_seed_gives_one_network():
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build_network(SMALL).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_images_are_normalized_by_the_imagenet_statistics():
    images = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = [(v / 255 - m) / s for v, m, s in zip((0, 128, 255), IMAGENET_MEAN, IMAGENET_STD, strict=True)]
    result = normalize(images)
    assert result.dtype == torch.float32
    assert result.flatten().tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("field", "value"), [("encoder", "resnet"), ("encoder", "timm/"), ("input_size", 100), ("input_size", 0)]
)
def test_a_wrong_spec_names_the_value(field, value):
    with pytest.raises(InputError, match=rf"network\.{field}: {value!r}"):
        NetworkSpec(**{field: value})
