"""Networks that torch.fx cannot record, by way of ``torch.export``, in the same operators.

``torch.export`` runs a forward on tensors without values, so that all of Python is allowed but for branches on what a
picture shows, and gives a graph of ATen operators in which nothing is changed in place. Here their names become those
that torch.fx records: ``torch.nn.functional`` and methods of tensors. The names of parameters are kept.
"""

import contextlib
import copy
import io
import logging
import operator
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from model.network.tracing import BATCHES, free_batch_
from quant.graph import UnsupportedNetworkError
from quant.tracing import aten


def trace_exported(network: nn.Module, example: Tensor) -> fx.GraphModule:
    """The graph of ``network`` for inputs of the example's size (1xCxHxW), any number at once, in eval mode.

    Its nodes have the ``meta`` that ``trace_with_sizes`` gives them. Raises what torch.export raises, and SizesError
    where the forward depends on the batch in other ways than in proportion.
    """
    ours, theirs = (_exported(network, example.repeat(count, *[1] * (example.dim() - 1))) for count in BATCHES)
    free_batch_(ours, theirs.graph, theirs)
    ours.graph.lint()
    ours.recompile()
    return ours.train(network.training)


def _exported(network: nn.Module, images: Tensor) -> fx.GraphModule:
    root = copy.deepcopy(network).eval()
    # Without gradients, attention takes fast paths that are one operator.
    with torch.enable_grad(), _silence():
        program = torch.export.export(root, (images,), strict=False)
    program = program.run_decompositions({})  # nothing is taken apart, but for what changes values in place
    graph = fx.Graph()
    inputs: Any = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    made: dict[fx.Node, Any] = {}
    for node in program.graph.nodes:
        if node.op == "output":
            specs = zip(program.graph_signature.output_specs, list(node.args[0]), strict=True)
            given = [made.get(value, value) for spec, value in specs if spec.kind == OutputKind.USER_OUTPUT]
            graph.output(_structured(given, program.call_spec.out_spec))
        elif node.op != "placeholder":
            made[node] = _call(graph, node, made)
        elif inputs[node.name].kind == InputKind.USER_INPUT:
            made[node] = graph.placeholder(node.name)
        else:
            made[node] = graph.get_attr(_attribute(root, str(inputs[node.name].target), program.constants))
        if isinstance(made.get(node), fx.Node):
            _describe_(made[node], node)
    return fx.GraphModule(root, graph, type(network).__name__)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """torch.export prints the graph so far where it fails; what is raised says enough."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _attribute(root: nn.Module, name: str, constants: dict[str, Any]) -> str:
    """Where the root has a parameter or a buffer; a tensor that the forward makes becomes a buffer."""
    owner, _, leaf = name.rpartition(".")
    known = name not in constants or name in dict(root.named_buffers())
    if known and isinstance(getattr(root.get_submodule(owner), leaf, None), Tensor):
        return name
    count = sum(other.startswith("_tensor_constant") for other in root._buffers)
    root.register_buffer(f"_tensor_constant{count}", constants[name].detach().clone())
    return f"_tensor_constant{count}"


def _call(graph: fx.Graph, node: fx.Node, made: dict[fx.Node, Any]) -> Any:
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda arg: made[arg])
    if isinstance(node.target, torch._ops.OpOverload):
        return None if "_assert" in str(node.target) else aten.call(graph, node, args, kwargs)
    if node.target is operator.getitem:
        source: Any = args[0]
        alone = source.target is F.batch_norm  # whose batch statistics have been left out
        return source if alone else graph.call_function(operator.getitem, args)
    raise UnsupportedNetworkError(f"{node.target} at {line_of(node)} is an operator that holds others.")


def _describe_(ours: fx.Node, node: fx.Node) -> None:
    value = node.meta.get("val")
    if isinstance(value, tuple | list) and ours.target is F.batch_norm:
        value = value[0]
    if isinstance(value, Tensor) and "shape" not in ours.meta:
        ours.meta.update(shape=tuple(value.shape), dtype=value.dtype)
    ours.meta.setdefault("line", line_of(node))


def line_of(node: fx.Node) -> str:
    """The innermost line of the network's own code that ``torch.export`` recorded with a node, as file:line."""
    frames = [line.split('"') for line in (node.stack_trace or "").splitlines() if line.lstrip().startswith('File "')]
    own = [(file, rest) for _, file, rest in frames if not file.startswith((torch.__path__[0], "<"))]
    return f"{own[-1][0]}:{own[-1][1].split()[2].rstrip(',')}" if own else ""


def _structured(values: list[Any], spec: Any) -> Any:
    """Outputs in the tuples, lists and dicts that the forward gives; those of a class of its own as a tuple."""
    output = pytree.tree_unflatten(values, spec)
    try:
        fx.node.map_aggregate(output, _require_plain)
    except TypeError:
        return tuple(values)
    return output


def _require_plain(value: Any) -> Any:
    if not isinstance(value, fx.Node | int | float | bool | str | None):
        raise TypeError(value)
    return value
