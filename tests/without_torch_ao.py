"""A PyTorch without ``torch.ao``, in other processes: imports of it are refused by who imports.

``import torch`` itself imports ``torch.ao``, so that it cannot be taken away as a whole. ``ours`` refuses it to this
project alone, as packages that engines need import it themselves: torchao 0.18.0 and executorch 1.5.1 do. ``all``
refuses it to everybody but PyTorch and torchvision 0.29.2, whose ``models`` import it, and in which networks are.
"""

import builtins
import importlib
import os
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from tests.import_graph import PACKAGES, ROOT, is_within

OURS, ALL = "ours", "all"
REFUSED = "torch.ao is refused here"
_VARIABLE = "WITHOUT_TORCH_AO"
_ALLOWED = ("torch", "torchvision")
_STARTED_FROM = ("__main__", "runner")


def environment(folder: Path, whom: str) -> dict[str, str]:
    """The environment of a process that is refused ``torch.ao``, as are all that it starts (Ray's workers too)."""
    (folder / "sitecustomize.py").write_text("from tests.without_torch_ao import refuse\n\nrefuse()\n")
    return {**os.environ, _VARIABLE: whom, "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}


def refuse() -> None:
    """Have this process refuse ``torch.ao`` to those whom the environment names."""
    whom = os.environ[_VARIABLE]
    statement, function = builtins.__import__, importlib.import_module

    def check(names: list[str], importer: str) -> None:
        package = importer.partition(".")[0]
        refused = package in (*PACKAGES, *_STARTED_FROM) if whom == OURS else package not in _ALLOWED
        if refused and any(is_within(name, "torch.ao") for name in names):
            raise ImportError(f"{REFUSED}: {importer} imports {names[0]}")

    def import_statement(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        if not level:
            check([name, *(f"{name}.{one}" for one in fromlist or ())], str((globals or {}).get("__name__", "")))
        return statement(name, globals, locals, fromlist, level)

    def import_module(name: str, package: str | None = None) -> Any:
        frame: FrameType = sys._getframe(1)
        check([name], str(frame.f_globals.get("__name__", "")))
        return function(name, package)

    builtins.__import__, importlib.import_module = import_statement, import_module  # type: ignore[assignment]
