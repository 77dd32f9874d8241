"""What a device needs for ``.pte`` files is built of ExecuTorch's wheel, or what is missing for that is told."""

import platform
import shutil

import pytest

from model.errors import InputError
from quant.engines.executorch_runner import build as built
from quant.engines.executorch_runner.build import LIBRARIES, build, libraries


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(built, "_version", lambda: "1.5.1")


def test_libraries_that_are_not_built_are_told_with_the_command_that_builds_them():
    with pytest.raises(InputError, match=r"aarch64: are not built\. Run: python -m quant\.engines\.executorch_runner"):
        libraries("aarch64")


def test_a_missing_compiler_is_told_with_its_package(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    other = "aarch64" if platform.machine() != "aarch64" else "x86_64"
    package = f"g\\+\\+-{other.replace('_', '-')}-linux-gnu"
    with pytest.raises(
        InputError, match=rf"{other}-linux-gnu-g\+\+: is not on this machine\. apt-get install {package}$"
    ):
        build(other)
    with pytest.raises(InputError, match=r"c\+\+: is not on this machine\. apt-get install g\+\+$"):
        build(platform.machine())


def test_a_machine_without_a_wheel_is_refused():
    with pytest.raises(InputError, match="'armv7l' has no wheel; expected one of aarch64, x86_64"):
        build("armv7l")


def test_a_failing_step_is_told_by_its_last_line_and_nothing_is_left(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setenv("PIP_INDEX_URL", "file:///nowhere")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(InputError, match=r"^PyPI's wheel of ExecuTorch: failed \(.*executorch==1\.5\.1"):
        build("aarch64")
    assert list((tmp_path / "quantization-grid").iterdir()) == []


def test_each_library_is_there_in_its_order(tmp_path):
    folder = tmp_path / "quantization-grid" / "executorch-1.5.1-aarch64"
    folder.mkdir(parents=True)
    assert [path.name for path in libraries("aarch64")] == list(LIBRARIES)
