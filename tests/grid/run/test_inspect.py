"""--inspect-network as a user gives it: a file, a name, and what is wrong with them."""

import pytest

import runner
from quant.inspection import inspection
from tests.grid.tiny import ROOT

EXAMPLE = ROOT / "docs" / "examples" / "small_depth.py"


@pytest.fixture(autouse=True)
def one_engine(monkeypatch):
    """The others take long; tests/quant/inspection asks them."""
    monkeypatch.setattr(inspection, "missing", lambda name: None if name == "qnnpack" else f"{name} needs x: pip")


def test_a_file_is_inspected_at_the_size_that_is_given(tmp_path, capsys):
    command = ["--inspect-network", str(EXAMPLE), "--input-size", "32", "--storage", str(tmp_path / "new")]
    assert runner.main(command) == 0
    text = capsys.readouterr().out
    page = tmp_path / "new" / "inspections" / "small_depth-32.html"
    assert text.endswith(f"page  {page}\n")
    assert "qnnpack: 100.0 % of the MACs and 100.0 % of the weights in int8" in text
    assert "xnnpack: not asked. xnnpack needs x: pip" in text
    assert "One image of 32 x 32" in page.read_text()


@pytest.mark.parametrize(
    ("what", "more", "said"),
    [
        ("torchvision/resnet19", (), "--inspect-network: 'torchvision/resnet19' is not a network of torchvision"),
        ("nowhere.py", (), "nowhere.py: cannot be read"),
        ("", (), "--inspect-network: '' is not a name"),
        ("nowhere.py", ("--input-size", "0"), "--input-size: 0 is out of range; expected 8 to 4096 pixels"),
        ("nowhere.py", ("--dry-run",), "--inspect-network and --dry-run: cannot be done at once"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, capsys, what, more, said):
    assert runner.main(["--inspect-network", what, "--storage", str(tmp_path), *more]) == 2
    error = capsys.readouterr().err
    assert error.startswith(said), error
    assert error.count("\n") == 1


def test_a_network_that_branches_on_values_is_refused_with_the_reason(tmp_path, capsys):
    file = tmp_path / "branching.py"
    file.write_text(
        "from torch import nn\n"
        "class Branching(nn.Module):\n"
        "    def forward(self, x):\n        return x if x.sum() > 0 else -x\n"
        "def build(input_size):\n    return Branching()\n"
    )
    assert runner.main(["--inspect-network", str(file), "--storage", str(tmp_path)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"{file}: cannot become an int8 network (")
    assert "docs/own.md" in error
