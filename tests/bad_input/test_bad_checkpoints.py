"""Checkpoints: whatever the file, no code of it runs, none fills the memory, and it is reported why."""

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from model.network.build import build_network
from model.network.checkpoint import SUFFIXES, load_checkpoint
from model.network.spec import NetworkSpec
from tests.bad_input.answers import handled, refusal
from tests.generated import generated

EXAMPLES = 150
SPEC = NetworkSpec(input_size=64)
BIAS = "head.layers.1.bias"


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return build_network(SPEC).state_dict()


# ---- the header of a safetensors file

NETWORKS = {
    "encoder of a number": '{"encoder": 3}',
    "encoder of null": '{"encoder": null}',
    "encoder of a list": '{"encoder": ["efficientnet_b0"]}',
    "no encoder": '{"encoder": ""}',
    "no model of timm": '{"encoder": "timm/"}',
    "unknown model of timm": '{"encoder": "timm/nonsense", "input_size": 64}',
    "unknown weights of timm": '{"encoder": "timm/resnet18.nonsense", "input_size": 64}',
    "model without stages": '{"encoder": "timm/vit_tiny_patch16_224", "input_size": 64}',
    "repository on a hub": '{"encoder": "timm/hf-hub:someone/something", "input_size": 64}',
    "folder on the disk": '{"encoder": "timm/local-dir:/etc", "input_size": 64}',
    "path": '{"encoder": "timm/../../etc/passwd", "input_size": 64}',
    "file that was not given": '{"encoder": "own/mine", "input_size": 64}',
    "path to a file": '{"encoder": "own/../../mine.py", "input_size": 64}',
    "size of a text": '{"input_size": "64"}',
    "size in float": '{"input_size": 64.0}',
    "size of true": '{"input_size": true}',
    "size of NaN": '{"input_size": NaN}',
    "endless size": '{"input_size": Infinity}',
    "negative size": '{"input_size": -64}',
    "odd size": '{"input_size": 65}',
    "size beyond the memory": '{"input_size": 32000}',
    "size beyond all": '{"input_size": 3200000000000000}',
    "another key": '{"input_size": 64, "pretrained": true}',
    "list": "[64]",
    "number": "3",
    "null": "null",
    "no JSON": "{",
    "deep": "[" * 100_000,
}
METADATA = {"list": "[]", "number": "3", "no JSON": "{", "deep": "[" * 100_000, "null": "null"}


def refused_header(folder: Path, state: dict[str, torch.Tensor], **header: str) -> str:
    file = folder / "bad.safetensors"
    save_file(state, file, metadata={"format": "depth-network-1", "network": '{"input_size": 64}', **header})
    message = refusal(lambda: load_checkpoint(file))
    assert message.startswith(f"{file}: its ")
    return message


@pytest.mark.parametrize("name", NETWORKS)
def test_a_header_that_describes_no_network_of_ours_is_reported(state, tmp_path, name):
    refused_header(tmp_path, state, network=NETWORKS[name], metadata="{}")


@pytest.mark.parametrize("name", METADATA)
def test_metadata_that_are_no_mapping_are_reported(state, tmp_path, name):
    assert "header" in refused_header(tmp_path, state, metadata=METADATA[name])


# ---- the bytes of a safetensors file


def headed(header: bytes, body: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + body


def tensor(**entry: Any) -> bytes:
    whole = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **entry}
    return headed(json.dumps({"a": whole}).encode(), b"0000")


SAFETENSORS = {
    "header of all memory": headed(b"{}", length=2**62),
    "header of 2^64": struct.pack("<Q", 2**64 - 1),
    "header of 200 MB": headed(b" " * 1000, length=200_000_000),
    "header cut short": headed(b'{"a', length=500),
    "no header": headed(b""),
    "empty header": headed(b"{}"),
    "header of a list": headed(b"[]"),
    "header of bytes": headed(b"\xff\xfe{}"),
    "deep header": headed(b"[" * 100_000),
    "deep mapping": headed(b'{"a":' * 50_000),
    "same name twice": headed(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},' * 2 + b'"b":1}', b"0000"),
    "more than there is": tensor(shape=[10**12], data_offsets=[0, 4 * 10**12]),
    "more than can be": tensor(shape=[2**63, 2**63]),
    "another count": tensor(shape=[3]),
    "negative shape": tensor(shape=[-1]),
    "shape of floats": tensor(shape=[1.5]),
    "unknown type": tensor(dtype="X9"),
    "backwards": tensor(data_offsets=[4, 0]),
    "offset beyond": tensor(data_offsets=[4, 8]),
    "metadata of a number": headed(b'{"__metadata__": {"format": 3}}'),
    "nothing": b"",
    "eight zeros": bytes(8),
    "pickle": pickle.dumps({"state_dict": {}}),
    "picture": b"\x89PNG\r\n\x1a\n" + bytes(50),
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_bytes_that_are_no_safetensors_are_reported_without_being_believed(tmp_path, name):
    (tmp_path / "bad.safetensors").write_bytes(SAFETENSORS[name])
    assert refusal(lambda: load_checkpoint(tmp_path / "bad.safetensors")).startswith(f"{tmp_path}/bad.safetensors: ")


# ---- tensors of all kinds

TENSORS: dict[str, Callable[[torch.Tensor], Any]] = {
    "NaN": lambda one: one * torch.nan,
    "infinite": lambda one: one / 0,
    "beyond float32": lambda one: torch.full_like(one, 1e300, dtype=torch.float64),
    "whole numbers": lambda one: one.to(torch.int8),
    "bools": lambda one: one > 0,
    "complex": lambda one: one.to(torch.complex64),
    "without numbers": lambda one: one.to("meta"),
    "sparse": lambda one: one.to_sparse(),
    "quantized": lambda one: torch.quantize_per_tensor(one, 0.1, 0, torch.qint8),
    "one more axis": lambda one: one[None],
    "empty": lambda one: one[:0],
    "repeated without room": lambda one: torch.zeros(1).expand(10**9),
    "list": lambda one: one.tolist(),
    "text": lambda one: "weights",
    "none": lambda one: None,
    "a mapping": lambda one: {"data": one},
}
KEPT = {"half": torch.float16, "bfloat16": torch.bfloat16, "double": torch.float64}


@pytest.mark.filterwarnings("ignore")  # torch's, about its own kinds of tensors
@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_that_is_no_plain_finite_one_of_its_shape_is_named(state, tmp_path, name):
    changed = {**state, BIAS: TENSORS[name](state[BIAS])}
    torch.save({"state_dict": changed}, tmp_path / "bad.ckpt")
    assert BIAS in refusal(lambda: load_checkpoint(tmp_path / "bad.ckpt", SPEC))


@pytest.mark.parametrize("name", KEPT)
def test_another_precision_is_read(state, tmp_path, name):
    torch.save({**state, BIAS: state[BIAS].to(KEPT[name])}, tmp_path / "fine.pth")
    assert load_checkpoint(tmp_path / "fine.pth", SPEC)[1] == SPEC


def test_a_negative_variance_is_named(state, tmp_path):
    variance = next(name for name in state if name.endswith("running_var"))
    torch.save({**state, variance: -state[variance]}, tmp_path / "bad.pth")
    assert f"1 negative: {variance}" in refusal(lambda: load_checkpoint(tmp_path / "bad.pth", SPEC))


# ---- pickles


class Bomb:
    """A pickle that calls a function with a text when an unrestricted unpickler reads it."""

    def __init__(self, call: Callable[[str], object], text: str) -> None:
        self.call, self.text = call, text

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, (self.text,)


def bombs(mark: Path) -> dict[str, Any]:
    made = f"open({str(mark)!r}, 'w').close()"
    return {
        "os.system": Bomb(os.system, f"touch {mark}"),
        "eval": Bomb(eval, made),
        "exec": Bomb(exec, made),
        "mkdir": Bomb(os.mkdir, str(mark)),
        "as a name": {Bomb(os.mkdir, str(mark)): torch.ones(1)},
        "deep inside": {"state_dict": {"a": torch.ones(1)}, "callbacks": [[{"x": (Bomb(os.mkdir, str(mark)),)}]]},
    }


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("form", ["torch", "older torch", *(f"pickle {protocol}" for protocol in range(6))])
@pytest.mark.parametrize("name", bombs(Path("x")))
def test_no_pickle_runs_in_any_form_and_under_any_suffix(tmp_path, name, form, suffix):
    mark, file = tmp_path / "ran", tmp_path / f"bomb{suffix}"
    content = bombs(mark)[name]
    if form.startswith("pickle"):
        file.write_bytes(pickle.dumps(content, protocol=int(form[-1])))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=form == "torch")
    assert refusal(lambda: load_checkpoint(file)).startswith(f"{file}: ")
    assert not mark.exists()


@pytest.mark.parametrize("name", bombs(Path("x")))
def test_these_bombs_are_no_duds(tmp_path, name):
    pickle.loads(pickle.dumps(bombs(tmp_path / "ran")[name]))
    assert (tmp_path / "ran").exists()


def compressed(state: dict[str, torch.Tensor]) -> bytes:
    plain, packed = io.BytesIO(), io.BytesIO()
    torch.save({**state, "more": torch.zeros(20_000_000)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    return packed.getvalue()


def test_a_compressed_archive_that_would_fill_the_memory_is_not_unpacked(state, tmp_path):
    content = compressed(state)
    assert len(content) < 10_000_000
    (tmp_path / "bomb.pth").write_bytes(content)
    assert "would unpack to" in refusal(lambda: load_checkpoint(tmp_path / "bomb.pth", SPEC))


PICKLES = {
    "nothing": b"",
    "a stop": b".",
    "endless marks": b"\x80\x02" + b"(" * 500_000,
    "huge text": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "huge bytes": b"\x80\x04\x8e" + b"\xff" * 8,
    "huge frame": b"\x80\x04\x95" + b"\xff" * 8,
    "memo beyond": b"\x80\x02r\xff\xff\xff\x7f.",
    "empty archive": b"PK\x05\x06" + bytes(18),
    "archive without an end": b"PK\x03\x04" + bytes(500),
    "text": b"no checkpoint",
    "page of a site": b"<!DOCTYPE html><html>404</html>",
    "pointer of git lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".ckpt", ".pt"])
@pytest.mark.parametrize("name", PICKLES)
def test_bytes_that_are_no_pickle_are_reported(tmp_path, name, suffix):
    (file := tmp_path / f"bad{suffix}").write_bytes(PICKLES[name])
    assert refusal(lambda: load_checkpoint(file)).startswith(f"{file}: cannot be read")


PATHS = ["", "x" * 300 + ".pth", "x/" * 300 + "a.pth", "a\0.pth", "/dev/zero", "/dev/stdin", "folder.safetensors", "/"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:20])
def test_a_path_that_no_checkpoint_can_have_is_reported(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    Path("folder.safetensors").mkdir()
    assert refusal(lambda: load_checkpoint(Path(path)))


@pytest.fixture(scope="module", params=[".safetensors", ".ckpt"])
def small(request, tmp_path_factory, state) -> Iterator[tuple[Path, bytes]]:
    """A checkpoint of a few tensors, quick to read: its names are wrong, which is reported after all else."""
    path = tmp_path_factory.mktemp("small") / f"a{request.param}"
    tensors = {name: state[name] for name in list(state)[:3]}
    if request.param == ".ckpt":
        torch.save(tensors, path)
    else:
        save_file(tensors, path, metadata={"format": "depth-network-1", "network": "{}", "metadata": "{}"})
    network = build_network(SPEC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.network.build.build_network", lambda spec: network)  # which takes most of the time
        yield path, path.read_bytes()


@pytest.mark.filterwarnings("ignore")
@given(place=st.floats(0, 1), junk=st.binary(min_size=1, max_size=9), cut=st.floats(0, 1))
@generated(EXAMPLES)
def test_a_checkpoint_damaged_anywhere_is_reported(small, place, junk, cut):
    path, whole = small
    at = int(place * len(whole))
    changed = whole[:at] + junk + whole[at + len(junk) :]
    path.write_bytes(changed[: int(len(changed) * cut)] if cut < 0.2 else changed)
    assert handled(lambda: load_checkpoint(path, SPEC))


INPUTS = len(NETWORKS) + len(METADATA) + len(SAFETENSORS) + len(TENSORS) + len(KEPT) + 2 + 2 * len(PICKLES)
INPUTS += len(bombs(Path("x"))) * 8 * len(SUFFIXES) + len(PATHS) + 2 * EXAMPLES
