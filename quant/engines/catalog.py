"""Which engines there are, and whether their packages are here. Nothing heavy is imported."""

import importlib.util

TORCH = ("qnnpack", "x86", "onednn")
"""Kernels of PyTorch itself: one int8 network, whose packed weights each of them lays out in its own way."""
PACKAGES = {"xnnpack": ("executorch", "torchao"), "onnxruntime": ("onnxruntime", "onnx", "onnxscript")}
"""Engines that run a file of their own, and what it takes to write and run it."""
INSTALL = "pip install -r requirements-engines.txt"


def is_exported(engine: str) -> bool:
    """Whether the engine runs a file of its own, float networks too."""
    return engine in PACKAGES


def missing(engine: str) -> str | None:
    """Why the engine cannot be used here, with the command that helps, or None."""
    absent = [name for name in PACKAGES.get(engine, ()) if importlib.util.find_spec(name) is None]
    return f"{engine} needs {', '.join(absent)}: {INSTALL}" if absent else None
