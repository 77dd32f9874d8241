"""Operators that change a value in place, as operators that give a new one."""

import inspect
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from quant.graph import SPLITS, UnsupportedNetworkError, module_of

_OPERATORS: dict[Any, Callable[..., Any]] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}
_VIEWS: tuple[Any, ...] = (
    *SPLITS,
    *(operator.getitem, getattr, torch.flatten, torch.reshape, torch.transpose, torch.permute, torch.squeeze),
    *(torch.unsqueeze, F.dropout, F.dropout2d, "flatten", "view", "view_as", "reshape", "transpose", "permute", "t"),
    *("squeeze", "unsqueeze", "contiguous", "to", "float", "detach", "expand", "expand_as", "unfold", "select"),
    *("narrow", "movedim", "unflatten", "diagonal", "swapaxes", "type", "requires_grad_"),
)
"""Operators whose result may share memory with their input."""
_VIEW_MODULES = (nn.Identity, nn.Flatten, nn.Unflatten, nn.Dropout, nn.Dropout2d)


def make_out_of_place_(graph_module: fx.GraphModule) -> None:
    """Let later readers of a value that is changed in place read the result instead.

    Raises UnsupportedNetworkError where a part or a view of such a value is read later: see ``trace_exported``.
    """
    position = {node: place for place, node in enumerate(graph_module.graph.nodes)}
    modules = {module for module in graph_module.modules() if getattr(module, "inplace", False)}
    for node in list(graph_module.graph.nodes):
        if not node.args or not isinstance(node.args[0], fx.Node):
            continue
        if module_of(graph_module, node) not in modules and not _makes_out_of_place_(node):
            continue
        source = node.args[0]
        for alias in _aliases(graph_module, source) - {source}:
            if any(position[user] > position[node] for user in alias.users):
                raise UnsupportedNetworkError(f"{node.name} changes what {alias.name}, read later, is a part of.")
        for user in [user for user in source.users if position[user] > position[node]]:
            user.replace_input_with(source, node)
    for module in modules:
        setattr(module, "inplace", False)  # noqa: B010 (modules have no such declared attribute)


def _makes_out_of_place_(node: fx.Node) -> bool:
    """Rewrite a call of a function or a method that works in place; whether it was one."""
    target, name = node.target, getattr(node.target, "__name__", str(node.target))
    in_name = name.endswith("_") and not name.endswith("__")
    if node.op == "call_method" and in_name:
        node.target = name[:-1]
    elif target in _OPERATORS:
        node.target = _OPERATORS[target]
    elif node.op == "call_function" and in_name and hasattr(library := _library(target), name[:-1]):
        node.target = getattr(library, name[:-1])
    elif node.op == "call_function" and getattr(target, "__module__", "") == F.__name__:
        given = inspect.signature(target).bind(*node.args, **node.kwargs)  # type: ignore[arg-type]
        if not given.arguments.get("inplace"):
            return False
        given.arguments["inplace"] = False
        node.args, node.kwargs = given.args, given.kwargs
    else:
        return False
    return True


def _library(function: Any) -> Any:
    return next((library for library in (F, torch) if getattr(library, function.__name__, None) is function), None)


def _aliases(graph_module: fx.GraphModule, value: fx.Node) -> set[fx.Node]:
    """All values that may share memory with this one."""
    base = value
    while _is_view(graph_module, base):
        base = base.args[0]  # type: ignore[assignment]
    found, waiting = {base}, [base]
    while waiting:
        for user in waiting.pop().users:
            if _is_view(graph_module, user) and user not in found:
                found.add(user)
                waiting.append(user)
    return found


def _is_view(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    is_view = node.target in _VIEWS or isinstance(module_of(graph_module, node), _VIEW_MODULES)
    return is_view and isinstance(node.args[0], fx.Node)
