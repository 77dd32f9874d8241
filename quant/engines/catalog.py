"""Which engines there are, and whether what they need is installed. Importing this imports nothing heavy."""

import importlib.util
import os
import shutil
import sys
import sysconfig
from pathlib import Path

TORCH = ("qnnpack", "x86", "onednn")
"""Kernels of PyTorch itself: one int8 network, whose packed weights each of them lays out in its own way."""
REVISIONS = {"x86": 2}
"""Raised where the same recipe gives other results on an engine than before: only its stages are computed again."""
PACKAGES = {
    "xnnpack": ("executorch", "torchao"),
    "onnxruntime": ("onnxruntime", "onnx", "onnxscript"),
    "litert": ("ai_edge_litert",),
}
"""Engines that run a file of their own, and the packages that write it; the first of them runs it."""
ON_DEVICES = ("onnxruntime", "litert", "xnnpack")
"""Engines whose files run on a device without PyTorch."""
FLOAT_RUNTIMES = ("eager", "channels_last", "compiled")
"""How PyTorch runs a float network: as it is, with channels innermost in memory, or through ``torch.compile``."""
NPUS = tuple(
    f"ethos-{name}"
    for name in (
        "u55-32", "u55-64", "u55-128", "u55-256", "u65-256", "u65-512",
        "u85-128", "u85-256", "u85-512", "u85-1024", "u85-2048",
    )
)  # fmt: skip
"""Accelerators whose compiler estimates what a file of litert would take."""
NO_NPU = "none"
VELA = Path(sys.prefix) / "vela" / "bin" / "vela"
"""That compiler, in an environment of its own."""
INSTALL = "pip install -r requirements-engines.txt"


def is_exported(engine: str) -> bool:
    """Whether the engine runs a file of its own, float networks too."""
    return engine in PACKAGES


def runtime(engine: str) -> tuple[str, ...]:
    """The packages that run a file of the engine, beyond PyTorch."""
    return PACKAGES.get(engine, ())[:1]


def missing(engine: str, only_to_run: bool = False) -> str | None:
    """Why the engine cannot be used here, with the command that helps, or None."""
    if engine in TORCH:
        return _missing_kernels(engine)
    packages = runtime(engine) if only_to_run else PACKAGES.get(engine, ())
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    return f"{engine} needs {', '.join(absent)}: {INSTALL}" if absent else None


def _missing_kernels(engine: str) -> str | None:
    import torch

    hint = f"use another engine, such as --set engine={next(iter(PACKAGES))}"
    try:
        importlib.import_module("torch.ao.nn.quantized")
    except ImportError:
        return f"{engine} needs torch.ao, and PyTorch {torch.__version__} has none here: {hint}"
    offered = [name for name in torch.backends.quantized.supported_engines if name != "none"]
    if engine not in offered:
        listed = ", ".join(offered) or "no int8 kernels at all"
        return f"PyTorch {torch.__version__} has no {engine} here, but {listed}: {hint}"
    return None


def missing_npu(accelerator: str) -> str | None:
    """Why nothing can be estimated for an accelerator here, or None."""
    there = accelerator == NO_NPU or os.access(VELA, os.X_OK)
    return None if there else f"{accelerator} needs ethos-u-vela in an environment of its own: make vela"


def missing_runtime(float_runtime: str) -> str | None:
    """Why PyTorch cannot run a float network in this way here, or None."""
    if float_runtime != "compiled":
        return None
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        return f"torch.compile needs a C++ compiler, and there is no {compiler}: install one, or name yours in CXX"
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").is_file():
        return f"torch.compile needs Python's headers, and there is no Python.h in {headers}: install python3-dev"
    return None
