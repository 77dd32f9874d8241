"""A network of the user's own: what is refused, what is built, and that nothing runs unasked."""

import sys
from pathlib import Path

import pytest
import torch

from model.errors import InputError
from model.network.build import build_network
from model.network.checkpoint import load_checkpoint, save_checkpoint
from model.network.pretrained import load_pretrained_
from model.network.spec import NetworkSpec
from model.network.user_network import own_network, register_network, run_file

EXAMPLE = Path(__file__).resolve().parents[3] / "docs" / "examples" / "small_depth.py"
WHOLE = """
from torch import nn
def build(input_size):
    return nn.Conv2d(3, 1, 4, stride=4)
"""


def file(folder: Path, text: str, name: str = "mine.py") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_the_example_gives_depth_of_a_quarter_of_the_size():
    network = build_network(NetworkSpec(register_network(EXAMPLE), 96))
    assert network.training
    assert network.eval()(torch.zeros(2, 3, 96, 96)).shape == (2, 1, 24, 24)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("mine.txt", WHOLE, "mine.txt: cannot be a network; expected a Python file"),
        ("my net.py", WHOLE, "my net.py: cannot be a network"),
        ("mine.py", "def build(size:\n", "mine.py: does not run (SyntaxError: '(' was never closed"),
        ("mine.py", "import never_made", "(ModuleNotFoundError: No module named 'never_made', line 1"),
        ("mine.py", "build = 3", "mine.py: has no function build; expected def build(input_size: int)"),
    ],
)
def test_a_file_without_a_network_is_refused_with_the_reason(tmp_path, name, text, message):
    with pytest.raises(InputError) as caught:
        register_network(file(tmp_path, text, name))
    assert message in str(caught.value)
    assert "docs/own.md" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent.py: cannot be read \(No such file"):
        register_network(tmp_path / "absent.py")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 3", "fails at 64 pixels (TypeError: build returned a int, not a torch.nn.Module"),
        ("return nn.Conv2d(4, 1, 4, stride=4)", "fails at 64 pixels (RuntimeError: "),
        ("raise OSError", "fails at 64 pixels (OSError: no message, line 4)"),
        ("return nn.Conv2d(3, 1, 2, stride=2)", "turns an image of 64 pixels into [1, 1, 32, 32]; expected [1, 1, 16,"),
        ("return nn.LSTM(64, 16)", "fails at 64 pixels"),
    ],
)
def test_a_network_that_gives_no_depth_map_is_refused_with_its_file(tmp_path, body, message):
    name = register_network(file(tmp_path, f"\nfrom torch import nn\ndef build(input_size):\n    {body}\n"))
    with pytest.raises(InputError) as caught:
        build_network(NetworkSpec(name, 64))
    assert str(caught.value).startswith(str(tmp_path / "mine.py"))
    assert message in str(caught.value)


def test_only_a_file_that_was_given_runs():
    spec = NetworkSpec("own/never_given", 64)  # as a search space or a checkpoint may name it
    with pytest.raises(InputError, match=r"'own/never_given' is not known.*--network never_given.py"):
        build_network(spec)


@pytest.mark.parametrize("name", ["own/", "own/../mine", "mine", "own"])
def test_a_name_that_no_file_can_have_is_refused(name):
    with pytest.raises(InputError, match=r"network.encoder: .* is unknown; expected .* own/<name>"):
        NetworkSpec(name)


def test_a_copy_takes_the_place_of_the_file_without_running_again(tmp_path):
    text = WHOLE + f"open({str(tmp_path / 'runs')!r}, 'a').write('x')\n"
    copy = tmp_path / "copy"
    copy.mkdir()
    name = register_network(file(tmp_path, text))
    assert register_network(file(copy, text)) == name
    assert own_network(name).file == copy / "mine.py"
    assert (tmp_path / "runs").read_text() == "x"


def test_a_changed_file_is_another_network(tmp_path):
    name = register_network(file(tmp_path, WHOLE))
    before = own_network(name)
    register_network(file(tmp_path, WHOLE.replace("stride=4", "stride=4, bias=False")))
    assert own_network(name).sha256 != before.sha256
    assert build_network(NetworkSpec(name, 64)).bias is None


def test_its_checkpoints_load_where_the_file_is_given(tmp_path):
    spec = NetworkSpec(register_network(file(tmp_path, WHOLE)), 64)
    network = build_network(spec)
    save_checkpoint(network, spec, tmp_path / "own.safetensors", {})
    torch.save(network.state_dict(), tmp_path / "bare.pth")
    images = torch.randn(1, 3, 64, 64)
    for loaded, loaded_spec, _ in (
        load_checkpoint(tmp_path / "own.safetensors"),
        load_checkpoint(tmp_path / "bare.pth", spec),
    ):
        assert loaded_spec == spec
        assert torch.equal(loaded(images), network.eval()(images))


def test_it_keeps_the_weights_of_its_file_whatever_the_source(tmp_path):
    spec = NetworkSpec(register_network(file(tmp_path, WHOLE)), 64)
    network = build_network(spec)
    before = network.weight.clone()
    load_pretrained_(network, spec, "lite0")
    assert torch.equal(network.weight, before)


def test_a_file_runs_once_a_process_for_whatever_it_is_asked_until_it_changes(tmp_path):
    log = f"open({str(tmp_path / 'ran')!r}, 'a').write('x')\n"
    path = file(tmp_path, WHOLE + log + "MORE = 1\n")
    register_network(path)
    first = run_file(path, "task", "")[1]
    assert run_file(path, "own", "")[1] is first
    assert (tmp_path / "ran").read_text() == "x"
    file(tmp_path, WHOLE + log + "MORE = 2\n")
    assert run_file(path, "own", "")[1].MORE == 2
    assert sys.modules[first.__name__] is not first
    file(tmp_path, WHOLE + log + "MORE = 1\n")
    assert run_file(path, "own", "")[1] is first
    assert sys.modules[first.__name__] is first
    assert (tmp_path / "ran").read_text() == "xx"
