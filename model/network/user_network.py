"""Networks of the user's own: a Python file with a function ``build(input_size)``, known as ``own/<its name>``.

A file runs only in a process that was given its path (``--network FILE``): neither a search space nor a checkpoint
nor a stored network can name code to run.
"""

import hashlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from model.errors import InputError
from model.network.spec import DEPTH, NetworkSpec
from model.tasks.nested import leaves

OWN = "own/"
_INSTEAD = "docs/own.md shows a whole one."


@dataclass(frozen=True)
class OwnNetwork:
    """A registered file: where it is, the SHA-256 of its bytes as hex, and its ``build``."""

    file: Path
    sha256: str
    build: Callable[..., nn.Module]


_registered: dict[str, OwnNetwork] = {}
_ran: dict[tuple[str, str], ModuleType] = {}
"""By the file's path and SHA-256."""


def register_network(file: Path) -> str:
    """Run ``file`` and make its network known in this process; returns its name, ``own/<file's name>``.

    A copy of a registered file takes its place and is not run again. Raises InputError for a file that is missing, does
    not run, or has no ``build``.
    """
    file = Path(file)
    if file.suffix != ".py" or not file.stem.isidentifier():
        raise InputError(str(file), "cannot be a network", "a Python file named in letters, digits and '_'", _INSTEAD)
    name, sha256 = OWN + file.stem, hashlib.sha256(_read(file, _INSTEAD)).hexdigest()
    known = _registered.get(name)
    build = known.build if known and known.sha256 == sha256 else _run(file)
    _registered[name] = OwnNetwork(file, sha256, build)
    return name


def own_network(name: str) -> OwnNetwork:
    """What is registered under ``own/...``; raises InputError where nothing is."""
    if name not in _registered:
        known = f"one of {', '.join(_registered)}, or" if _registered else "a network whose file was given:"
        problem = f"{name!r} is not known, and code runs only from a file that you name"
        raise InputError("network.encoder", problem, f"{known} --network {name.removeprefix(OWN)}.py")
    return _registered[name]


def build_own(spec: NetworkSpec) -> nn.Module:
    """Build the network in train mode; that of depth after a check that it gives depth maps of the right shape.

    Raises InputError naming the file where its ``build`` or its network fails.
    """
    network, outputs = built_once(spec.encoder, spec.shape, spec.classes)
    file, size = str(own_network(spec.encoder).file), spec.output_size
    if spec.task == DEPTH and (not isinstance(outputs, torch.Tensor) or tuple(outputs.shape) != (1, 1, size, size)):
        shape = list(outputs.shape) if isinstance(outputs, torch.Tensor) else f"a {type(outputs).__name__}"
        problem = f"turns an image of {spec.input_size} pixels into {shape}"
        raise InputError(file, problem, f"{[1, 1, size, size]}: one depth map of a quarter of its size", _INSTEAD)
    wrong = [type(value).__name__ for value in leaves(outputs).values() if not isinstance(value, torch.Tensor)]
    if wrong or not leaves(outputs):
        forward = line_of(type(network).forward)
        kind = f"{type(outputs).__name__} without any" if not wrong else type(outputs).__name__
        held = f" that holds a {wrong[0]}" if wrong and wrong[0] != kind else ""
        problem = f"the forward of its network{forward} gives a {kind}{held}"
        raise InputError(file, problem, "a tensor, or a tuple or dict of tensors", _INSTEAD)
    if not any(weight.requires_grad for weight in network.parameters()):
        raise InputError(file, "its network has nothing to learn", "parameters with requires_grad", _INSTEAD)
    return network.train()


def built_once(name: str, shape: tuple[int, int, int], classes: int = 0) -> tuple[nn.Module, Any]:
    """The network in eval mode, of whatever task, and what it gives for an input of zeros of C x H x W.

    ``build`` gets the side of square inputs, and (H, W) of others; the number of classes too, where it asks for
    ``classes``. Raises InputError naming the file where its ``build`` or its network fails.
    """
    own, (_, height, width) = own_network(name), shape
    size = height if height == width else (height, width)
    try:
        more = {"classes": classes} if "classes" in inspect.signature(own.build).parameters else {}
        network = own.build(size, **more)
        if not isinstance(network, nn.Module):
            at = line_of(own.build).rstrip(",")
            raise TypeError(f"build returned a {type(network).__name__}, not a torch.nn.Module{at}")
        with torch.no_grad():
            return network, network.eval()(torch.zeros(1, *shape))
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        problem = f"fails at {size} pixels ({reason(error, own.file)})"
        raise InputError(str(own.file), problem, "build(input_size) to give a network of images", _INSTEAD) from error


def run_file(file: Path, kind: str, hint: str) -> tuple[bytes, ModuleType]:
    """Run a Python file of the user's as a module of its own, once a process; returns its bytes and the module.

    ``kind`` is a prefix of the module's name. Raises InputError, with the hint, where it is missing or does not run.
    """
    source = _read(file, hint)
    key = os.path.abspath(file), hashlib.sha256(source).hexdigest()
    if key in _ran:
        sys.modules[_ran[key].__name__] = _ran[key]  # another file of that name may have taken its place
        return source, _ran[key]
    spec = importlib.util.spec_from_file_location(f"{kind}_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses and torch.fx look a class up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise InputError(str(file), f"does not run ({reason(error, file)})", "a Python module", hint) from error
    _ran[key] = module
    return source, module


def _read(file: Path, hint: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(str(file), f"cannot be read ({error.strerror})", "a Python file", hint) from error


def _run(file: Path) -> Callable[..., nn.Module]:
    """Run the file and return its ``build``."""
    _, module = run_file(file, "own", _INSTEAD)
    build: Callable[..., nn.Module] | None = getattr(module, "build", None)
    if not callable(build):
        raise InputError(str(file), "has no function build", "def build(input_size: int) -> nn.Module", _INSTEAD)
    return build


def reason(error: BaseException, file: Path) -> str:
    """Kind, message and, where the error went through the user's file, the last line there."""
    whole = os.path.abspath(file)  # modules hold it, whatever the user gave
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == whole]
    at = f", line {lines[-1]}" if lines else ""
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}{at}"


def line_of(function: Callable[..., Any]) -> str:
    """``, line N,``: where a function of the user's begins; empty for one without Python code."""
    code = getattr(function, "__code__", None)
    return f", line {code.co_firstlineno}," if code else ""
