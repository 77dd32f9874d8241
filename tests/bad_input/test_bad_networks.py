"""Networks of the user's own: whatever the file does, it is reported and does not end the program."""

import pytest

from model.network.spec import NetworkSpec
from model.network.user_network import build_own, register_network
from tests.bad_input.answers import refusal

OWN = {
    "empty": b"",
    "no Python": b"def build(:",
    "zeros": b"x = '\0'",
    "no UTF-8": b"gr\xf6\xdfe = 3",
    "deep": b"(" * 5000 + b")" * 5000,
    "ends the program": b"import sys\nsys.exit(0)",
    "raises": b"raise RuntimeError('no')",
    "raises without a word": b"class E(Exception): ...\nraise E",
    "build is no function": b"build = 3",
    "missing import": b"import nowhere_to_be_found",
    "endless recursion": b"def f(): return f()\nf()",
}
BUILDS = {
    "ends the program": "import sys; sys.exit(0)",
    "gives nothing": "return None",
    "gives a class": "return nn.Conv2d",
    "raises": "return 1 / 0",
    "takes other images": "return nn.Conv2d(1, 1, 4, 4)",
    "ends the program on an image": "return type('N', (nn.Module,), {'forward': lambda s, x: exit(0)})()",
    "gives a list": "return type('N', (nn.Module,), {'forward': lambda s, x: [x]})()",
    "gives another size": "return nn.Conv2d(3, 1, 1)",
    "endless recursion": "return build(size)",
}


@pytest.mark.parametrize("name", OWN)
def test_a_file_without_a_network_is_reported_and_ends_nothing(tmp_path, name):
    (tmp_path / "mine.py").write_bytes(OWN[name])
    assert refusal(lambda: register_network(tmp_path / "mine.py")).startswith(f"{tmp_path}/mine.py: ")


@pytest.mark.parametrize("name", BUILDS)
def test_a_build_without_a_network_is_reported_and_ends_nothing(tmp_path, name):
    file = tmp_path / "bad_build.py"
    file.write_text(f"from torch import nn\n\ndef build(size):\n    {BUILDS[name]}\n")
    own = register_network(file)
    assert refusal(lambda: build_own(NetworkSpec(own, 64))).startswith(f"{file}: ")


@pytest.mark.parametrize(
    "name", ["x" * 300 + ".py", "/dev/null", "a b.py", "../.py", "folder.py", "class-a.py", "a.txt"]
)
def test_a_path_that_no_network_can_have_is_reported(tmp_path, name):
    (tmp_path / "folder.py").mkdir()
    assert refusal(lambda: register_network(tmp_path / name))


INPUTS = len(OWN) + len(BUILDS) + 7
