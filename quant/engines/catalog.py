"""Which engines there are, and whether their packages are installed. Nothing heavy is imported."""

import importlib.util

TORCH = ("qnnpack", "x86", "onednn")
"""Kernels of PyTorch itself: one int8 network, whose packed weights each of them lays out in its own way."""
REVISIONS = {"x86": 2}
"""Raised where the same recipe gives other results on an engine than before: only its stages are computed again."""
PACKAGES = {"xnnpack": ("executorch", "torchao"), "onnxruntime": ("onnxruntime", "onnx", "onnxscript")}
"""Engines that run a file of their own, and the packages that write it; the first of them runs it."""
INSTALL = "pip install -r requirements-engines.txt"


def is_exported(engine: str) -> bool:
    """Whether the engine runs a file of its own, float networks too."""
    return engine in PACKAGES


def runtime(engine: str) -> tuple[str, ...]:
    """The packages that run a file of the engine, beyond PyTorch."""
    return PACKAGES.get(engine, ())[:1]


def missing(engine: str, only_to_run: bool = False) -> str | None:
    """Why the engine cannot be used here, with the command that helps, or None."""
    packages = runtime(engine) if only_to_run else PACKAGES.get(engine, ())
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    return f"{engine} needs {', '.join(absent)}: {INSTALL}" if absent else None
