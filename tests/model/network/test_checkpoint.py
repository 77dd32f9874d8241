import argparse
import copy
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from model.errors import InputError
from model.network.build import build_network
from model.network.checkpoint import checkpoint_sha256, load_checkpoint, save_checkpoint, to_float16_
from model.network.spec import NetworkSpec

SMALL = NetworkSpec(input_size=64)
METADATA = {"command": "python -m model train", "test_ssim": 0.875, "epochs": 25}


class Bomb:
    """A pickle of it calls ``os.system`` when an unrestricted unpickler reads it."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_network(SMALL)


@pytest.fixture(scope="module")
def state(network):
    return network.state_dict()


def assert_same(state, other):
    assert state.keys() == other.keys()
    assert all(torch.equal(state[name], other[name]) for name in state)


@pytest.mark.parametrize("spec", [SMALL, NetworkSpec("timm/mobilenetv3_small_100", 96)])
def test_a_checkpoint_returns_network_spec_and_metadata(spec, tmp_path):
    network = build_network(spec).eval()
    save_checkpoint(network, spec, tmp_path / "new" / "float.safetensors", METADATA)
    loaded, loaded_spec, metadata = load_checkpoint(tmp_path / "new" / "float.safetensors")
    assert (loaded_spec, metadata) == (spec, METADATA)
    assert not loaded.training
    images = torch.randn(1, 3, spec.input_size, spec.input_size)
    with torch.no_grad():
        assert torch.equal(loaded(images), network(images))


def test_a_checkpoint_of_16_bits_takes_half_the_bytes_and_returns_the_rounded_weights(network, tmp_path):
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    network = copy.deepcopy(network)
    to_float16_(network)
    save_checkpoint(network, SMALL, whole, {})
    save_checkpoint(network, SMALL, half, {}, float16=True)
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    loaded, _, _ = load_checkpoint(half)
    expected = network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    assert all(value.dtype == expected[name].dtype for name, value in loaded.state_dict().items())


def test_a_value_that_16_bits_do_not_hold_is_named():
    layer = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(layer.bias, 1e6)
    with pytest.raises(OverflowError, match="bias"):
        to_float16_(layer)


def test_saving_replaces_a_checkpoint_and_leaves_no_other_file(network, state, tmp_path):
    path = tmp_path / "float.safetensors"
    path.write_bytes(b"old")
    save_checkpoint(network, SMALL, path, {})
    assert_same(state, load_checkpoint(path)[0].state_dict())
    assert list(tmp_path.iterdir()) == [path]


def test_a_save_that_fails_keeps_the_old_checkpoint(network, tmp_path, monkeypatch):
    path = tmp_path / "float.safetensors"
    path.write_bytes(b"old")

    def fail(source, target):
        raise OSError("no space left")

    monkeypatch.setattr("model.files.os.replace", fail)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(network, SMALL, path, {})
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_channels_last_weights_are_saved(tmp_path):
    network = build_network(SMALL).to(memory_format=torch.channels_last)
    save_checkpoint(network, SMALL, tmp_path / "float.safetensors", {})
    assert_same(network.state_dict(), load_checkpoint(tmp_path / "float.safetensors")[0].state_dict())


def test_the_hash_is_that_of_the_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert checkpoint_sha256(tmp_path / "file").startswith("ba7816bf8f01cfea414140de5dae2223")
    with pytest.raises(InputError, match="nowhere"):
        checkpoint_sha256(tmp_path / "nowhere")


@pytest.mark.parametrize("prefix", ["", "net."])
@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("suffix", [".ckpt", ".pth"])
def test_a_state_dict_of_the_study_loads(prefix, wrapped, suffix, state, tmp_path):
    content = {prefix + name: tensor for name, tensor in state.items()}
    path = tmp_path / f"study{suffix}"
    torch.save({"epoch": 7, "state_dict": content, "hyper_parameters": {"lr": 1e-3}} if wrapped else content, path)
    loaded, spec, metadata = load_checkpoint(path)
    assert_same(state, loaded.state_dict())
    assert (spec, metadata, loaded.training) == (NetworkSpec(), {}, False)


def test_tensors_beside_the_lightning_network_are_left_out(state, tmp_path):
    content = {f"net.{name}": tensor for name, tensor in state.items()}
    torch.save({"state_dict": {**content, "loss.window": torch.ones(3)}}, tmp_path / "study.ckpt")
    assert_same(state, load_checkpoint(tmp_path / "study.ckpt")[0].state_dict())


@pytest.mark.parametrize("plain_pickle", [False, True])
def test_a_pickle_that_would_run_code_does_not(plain_pickle, state, tmp_path):
    marker, path = tmp_path / "ran", tmp_path / "bomb.ckpt"
    content = {"state_dict": state, "extra": Bomb(marker)}
    if plain_pickle:
        path.write_bytes(pickle.dumps({"extra": Bomb(marker)}, protocol=2))
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=r"bomb\.ckpt: it needs \S+\.system to be loaded"):
        load_checkpoint(path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Bomb(marker)))
    assert marker.exists(), "the bomb of this test is a dud"


def test_hyper_parameters_of_a_class_are_named_with_the_way_to_convert(state, tmp_path):
    torch.save({"state_dict": state, "hyper_parameters": argparse.Namespace(lr=1)}, tmp_path / "study.ckpt")
    with pytest.raises(InputError, match=r"study\.ckpt: it needs argparse\.Namespace.*weights_only=False"):
        load_checkpoint(tmp_path / "study.ckpt")


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello world" * 99, bytes(range(256)) * 9, b"PK\x03\x04" + b"\0" * 99])
def test_a_file_that_is_no_checkpoint_is_named(suffix, content, tmp_path):
    path = tmp_path / f"junk{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"junk\{suffix}: cannot be read"):
        load_checkpoint(path)


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_checkpoint_cut_short_is_named(suffix, kept, network, state, tmp_path):
    path = tmp_path / f"cut{suffix}"
    if suffix == ".ckpt":
        torch.save(state, path)
    else:
        save_checkpoint(network, SMALL, path, METADATA)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(InputError, match=rf"cut\{suffix}: cannot be read"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}, {"state_dict": {}}, torch.ones(3)])
def test_a_file_without_weights_is_named(content, tmp_path):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other\.pth: it"):
        load_checkpoint(tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head.layers.1.bias": None}, r"1 missing: head\.layers\.1\.bias"),
        ({"classifier.weight": torch.ones(3)}, r"1 unexpected: classifier\.weight"),
        ({"head.layers.1.bias": torch.ones(7)}, r"1 of another shape: head\.layers\.1\.bias \[7\] for \[1\]"),
        ({"head.layers.1.bias": torch.tensor([float("nan")])}, r"1 not finite: head\.layers\.1\.bias"),
    ],
)
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_tensors_that_do_not_fit_are_named(change, message, suffix, state, tmp_path):
    tensors = {name: tensor for name, tensor in {**state, **change}.items() if tensor is not None}
    path = tmp_path / f"wrong{suffix}"
    if suffix == ".ckpt":
        torch.save({"state_dict": {f"net.{name}": tensor for name, tensor in tensors.items()}}, path)
    else:
        header = {"format": "depth-network-1", "metadata": "{}"}
        save_file(tensors, path, metadata={**header, "network": '{"input_size": 64}'})
    with pytest.raises(InputError, match=rf"wrong\{suffix}: .*'efficientnet_b0' \({message}\)"):
        load_checkpoint(path)


def test_only_the_first_of_many_names_are_shown(state, tmp_path):
    torch.save({name: tensor for name, tensor in state.items() if name.startswith("decoder")}, tmp_path / "half.pth")
    with pytest.raises(InputError, match=r"missing: encoder\.layer0\.0\.0\.weight, .*, \.\.\.") as caught:
        load_checkpoint(tmp_path / "half.pth")
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (None, "format None"),
        ({"format": "other"}, "format 'other'"),
        ({"format": "depth-network-1"}, "does not describe a network"),
        ({"format": "depth-network-1", "network": "{", "metadata": "{}"}, "does not describe a network"),
        ({"format": "depth-network-1", "network": '{"depth": 3}', "metadata": "{}"}, "depth"),
        ({"format": "depth-network-1", "network": '{"encoder": "alexnet"}', "metadata": "{}"}, "'alexnet'"),
        ({"format": "depth-network-1", "network": '{"encoder": "timm/none"}', "metadata": "{}"}, "'timm/none'"),
    ],
)
def test_a_safetensors_file_of_something_else_is_named(header, message, state, tmp_path):
    save_file(dict(state), tmp_path / "other.safetensors", metadata=header)
    with pytest.raises(InputError, match=rf"other\.safetensors: .*{message}"):
        load_checkpoint(tmp_path / "other.safetensors")


@pytest.mark.parametrize("name", ["nowhere.safetensors", "folder.ckpt", "weights.onnx"])
def test_a_path_that_cannot_be_a_checkpoint_is_named(name, tmp_path):
    (tmp_path / "folder.ckpt").mkdir()
    (tmp_path / "weights.onnx").write_bytes(b"x")
    with pytest.raises(InputError, match=rf"{name}: .*\.safetensors"):
        load_checkpoint(tmp_path / name)
