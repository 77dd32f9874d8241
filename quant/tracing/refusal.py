"""Why a network cannot be traced, in one line: operator, module, line of code, and what to do."""

import inspect
import linecache
import os
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, fx, nn

from model.network import tracing
from model.network.tracing import SizesError
from quant.graph import UnsupportedNetworkError

_INSIDE = (str(Path(__file__).parents[1]) + os.sep, tracing.__file__, os.path.dirname(torch.__file__) + os.sep, "<")
"""Files of our own and of PyTorch."""
_PYTHON, _PACKAGES = os.path.dirname(os.__file__) + os.sep, f"{os.sep}site-packages{os.sep}"
_ON_VALUES = ("GuardOnDataDependentSymNode", "UserError", "DataDependentOutputException", "DynamicOutputShapeException")
_ADVICE_VALUES = "It depends on values of the picture: compute both sides and choose by torch.where."
_ADVICE_BATCH = "Read the size of the batch from x.shape[0], and use it as a size alone."
_ADVICE_INPUTS = "Wrap it in a module whose forward takes images alone."
_ADVICE = "Write it in operators of torch.nn or torch.nn.functional, on sizes that do not depend on the picture."


def refusal(network: nn.Module, *errors: Exception) -> UnsupportedNetworkError:
    """What to raise after torch.fx, and then torch.export, failed with ``errors``."""
    error = next((error for error in reversed(errors) if _line(error)), errors[-1])
    line, (path, kind) = _line(error), _module(error)
    where = type(network).__name__ + (f".{path} ({kind})" if path else "")
    if len(needed := _needed(network)) != 1:
        takes = f"takes {' and '.join(needed) or 'nothing'}; expected one argument, the images"
        return UnsupportedNetworkError(f"{where} cannot be traced: its forward {takes}. {_ADVICE_INPUTS}")
    where += _shown(line)
    reason, advice = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip("."), _ADVICE
    if isinstance(error, fx.proxy.TraceError) or type(error).__name__ in _ON_VALUES:
        reason, advice = "", _ADVICE_VALUES
    elif isinstance(error, SizesError):
        advice = _ADVICE_BATCH
    return UnsupportedNetworkError(f"{where} cannot be traced{f': {reason}' if reason else ''}. {advice}")


def run(graph_module: fx.GraphModule, images: Tensor) -> Any:
    """Run a graph by operators; raises UnsupportedNetworkError that names the one that fails, and its line of code."""
    return _Run(graph_module).run(images)


class _Run(fx.Interpreter):
    def run_node(self, n: fx.Node) -> Any:
        try:
            return super().run_node(n)
        except Exception as error:
            operator = f"{n.op} {n._pretty_print_target(n.target)}"
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UnsupportedNetworkError(f"{operator}{_shown(n.meta.get('line', ''))}: {reason}") from error


def _needed(network: nn.Module) -> list[str]:
    """What the forward cannot do without."""
    arguments = inspect.signature(network.forward).parameters.values()
    return [
        one.name
        for one in arguments
        if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]


def _is_own(line: str) -> bool:
    """Whether it is of the network: not of PyTorch, of Python's library or of ours."""
    return not line.startswith(_INSIDE) and (_PACKAGES in line or not line.startswith(_PYTHON))


def _shown(line: str) -> str:
    """The line with what is written there."""
    file, _, number = line.rpartition(":")
    return f", {line}, `{linecache.getline(file, int(number)).strip()}`" if line else ""


def _frames(error: BaseException) -> list[tuple[FrameType, int]]:
    found, traceback = [], error.__traceback__
    while traceback is not None:
        found.append((traceback.tb_frame, traceback.tb_lineno))
        traceback = traceback.tb_next
    return found


def _line(error: Exception) -> str:
    """The innermost line of the network's own code, as file:line."""
    node = getattr(error, "node", None)
    if isinstance(node, fx.Node):
        return str(node.meta.get("line", ""))
    lines = [f"{frame.f_code.co_filename}:{number}" for frame, number in _frames(error)]
    own = [line for line in lines if _is_own(line)]
    return own[-1] if own else ""


def _module(error: Exception) -> tuple[str, str]:
    """Path and kind of the innermost module whose forward had been entered."""
    entered: list[Any] = []
    for frame, _ in _frames(error):
        owner = frame.f_locals.get("self")
        if frame.f_code.co_name == "forward" and isinstance(owner, nn.Module):
            entered.append(owner)
    if not entered:
        return "", ""
    path = next((name for name, module in entered[0].named_modules() if module is entered[-1]), "")
    return path.removeprefix("_export_root").removeprefix("."), type(entered[-1]).__name__
