"""The libraries that run ``.pte`` files on a Linux device: those of ExecuTorch's wheel, and one compiled on this host.

The wheel for the device's processor brings ExecuTorch without torch in ``executorch/lib``, with its headers. What it
lacks is a way in for Python, which a cross compiler makes of ``runner.cpp``. Devices get 12 MB and need no package.
"""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from model.errors import InputError, last_line

LIBRARIES = (
    "libexecutorch.so",
    "libexecutorch_threadpool.so",
    "libexecutorch_backend_xnnpack.so",
    "libexecutorch_kernels_optimized.so",
    "libexecutorch_kernels_quantized.so",
    "librunner.so",
)
"""In the order in which a process loads them."""
PLATFORMS = {"aarch64": "manylinux_2_28_aarch64", "x86_64": "manylinux_2_28_x86_64"}
"""Of the wheels, by what ``uname -m`` says on a device."""
_SOURCE = Path(__file__).with_name("runner.cpp")
_PORTABLE = "executorch/runtime/core/portable_type/c10"


def libraries(machine: str) -> tuple[Path, ...]:
    """The libraries for a machine, in the order in which they are loaded; raises InputError before they are built."""
    folder = _folder(machine)
    if not folder.is_dir():
        where = f"ExecuTorch's libraries for {machine}"
        raise InputError(where, "are not built", hint=f"Run: python -m quant.engines.executorch_runner {machine}")
    return tuple(folder / name for name in LIBRARIES)


def build(machine: str) -> tuple[Path, ...]:
    """Fetch the wheel of the version that is installed here, and compile; raises InputError with what is missing."""
    if machine not in PLATFORMS:
        raise InputError("executorch_runner", "has no wheel", options=tuple(PLATFORMS), value=repr(machine))
    folder, compiler = _folder(machine), _compiler(machine)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        wheel = Path(scratch) / "wheel"
        fetch = ["--no-deps", "--only-binary=:all:", "--platform", PLATFORMS[machine], "--python-version", "3.11"]
        fetch += ["--dest", str(wheel), f"executorch=={_version()}"]
        _run([sys.executable, "-m", "pip", "download", "--quiet", *fetch], "PyPI's wheel of ExecuTorch")
        (file,) = wheel.glob("*.whl")
        with zipfile.ZipFile(file) as content:
            parts = [name for name in content.namelist() if name.startswith(("executorch/lib/", "executorch/include/"))]
            content.extractall(scratch, parts)
        made, include = Path(scratch) / "executorch" / "lib", Path(scratch) / "executorch" / "include"
        linked = [f"-l{name.removeprefix('lib').removesuffix('.so')}" for name in LIBRARIES[:2]]
        flags = ["-std=c++17", "-O2", "-w", "-fPIC", "-shared", "-DC10_USING_CUSTOM_GENERATED_MACROS"]
        flags += ["-I", str(include), "-I", str(include / _PORTABLE), "-L", str(made)]
        output = str(made / LIBRARIES[-1])
        _run([compiler, *flags, str(_SOURCE), "-o", output, *linked], f"{_SOURCE.name} by {compiler}")
        kept = Path(scratch) / "kept"
        kept.mkdir()
        for name in LIBRARIES:
            (made / name).rename(kept / name)
        shutil.rmtree(folder, ignore_errors=True)
        kept.rename(folder)
    return libraries(machine)


def _folder(machine: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "quantization-grid" / f"executorch-{_version()}-{machine}"


def _version() -> str:
    try:
        return importlib.metadata.version("executorch")
    except importlib.metadata.PackageNotFoundError:
        raise InputError("executorch", "is not installed here", hint="make engines") from None


def _compiler(machine: str) -> str:
    name = "c++" if machine == platform.machine() else f"{machine}-linux-gnu-g++"
    if shutil.which(name) is None:
        package = "g++" if name == "c++" else f"g++-{machine.replace('_', '-')}-linux-gnu"
        raise InputError(name, "is not on this machine", hint=f"apt-get install {package}")
    return name


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(what, f"failed ({last_line(done.stderr, 300) or 'it said nothing'})")
