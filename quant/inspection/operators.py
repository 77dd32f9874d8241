"""The operators of a prepared network, with what each of them costs: MACs, weights, memory and time."""

import copy
import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from quant.engines.decomposed import decompose
from quant.fake_quantize import FakeQuantize
from quant.graph import SPLITS, constants, is_linear_in_place, keeps_quantization, module_of
from quant.prepare import QuantConv, quantizers

OPERATOR = "operator"
"""Key of a node's ``meta`` under which it keeps the name of its operator through copies of the graph."""


@dataclass(frozen=True)
class Operator:
    """One operator for one image: a convolution with its BatchNorm and activation, or any other node of the graph.

    ``module`` is the module that it is or is called in, ``shape`` that of its (first) output, ``weights`` the number
    of values in its weights without biases, ``float_s`` its time in the float network, ``inputs`` the operators that it
    reads from. ``moves``: it only rearranges values.
    """

    name: str
    module: str
    kind: str
    shape: tuple[int, ...]
    macs: int
    weights: int
    moves: bool
    inputs: tuple[str, ...]
    float_s: float = 0.0

    @property
    def values(self) -> int:
        """How many values its output has."""
        return int(torch.Size(self.shape).numel())


def operator_nodes(prepared: fx.GraphModule) -> list[fx.Node]:
    """The nodes that compute or move values of images, in order, but for quantizers."""
    constant = constants(prepared)
    return [
        node
        for node in prepared.graph.nodes
        if node.op.startswith("call_")
        and node not in constant
        and not isinstance(module_of(prepared, node), FakeQuantize)
    ]


def marked(prepared: fx.GraphModule) -> fx.GraphModule:
    """A copy in which every operator's node has its name in ``meta``, which copies of the graph keep."""
    copied = copy.deepcopy(prepared)
    for node in operator_nodes(copied):
        node.meta[OPERATOR] = node.name
    return copied


def float_form(prepared: fx.GraphModule) -> fx.GraphModule:
    """The float network of a prepared one, operator by operator: marked, without quantizers, ready to be run."""
    copied = marked(prepared)
    for quantizer in quantizers(copied).values():
        quantizer.set_mode("off")
    return decompose(copied, signed=False)


@torch.no_grad()
def operators(prepared: fx.GraphModule, image: Tensor, passes: int = 0) -> tuple[Operator, ...]:
    """All operators of a prepared network for ``image`` (1xCxHxW), in order.

    Times are medians of so many ``passes`` of the float network on one thread; 0 where there are none.
    """
    form = float_form(prepared)
    counted = _Counted(form)
    counted.run(image)
    seconds = _times(form, image, passes)
    names = {node.name for node in operator_nodes(prepared)}
    found = []
    for node in operator_nodes(prepared):
        module = module_of(prepared, node)
        found.append(
            Operator(
                node.name,
                module_name(prepared, node),
                kind_of(prepared, node),
                counted.shapes.get(node.name, ()),
                counted.macs.get(node.name, 0),
                0 if module is None else weights_of(module),
                moves(prepared, node),
                tuple(dict.fromkeys(name for source in node.all_input_nodes for name in _sources(source, names))),
                seconds.get(node.name, 0.0),
            )
        )
    return tuple(found)


def weights_of(network: nn.Module) -> int:
    """The number of values in all weights; biases and the vectors of norms do not count."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.dim() > 1)


def kind_of(graph_module: fx.GraphModule, node: fx.Node) -> str:
    """What an operator is in a reader's words, such as ``depthwise conv 3x3 + ReLU`` or ``LayerNorm``."""
    module = module_of(graph_module, node)
    if isinstance(module, QuantConv):
        conv = module.conv
        depthwise = conv.groups == conv.in_channels > 1
        prefix = "depthwise " if depthwise else "grouped " if conv.groups > 1 else ""
        clamp = {None: "", float("inf"): " + ReLU"}.get(module.limit, " + ReLU6")
        return f"{prefix}conv {'x'.join(map(str, conv.kernel_size))}{clamp}"
    if module is not None:
        return type(module).__name__
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    return "slice" if name == "getitem" else name.removeprefix("_")


def moves(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether an operator only rearranges values."""
    if node.target in SPLITS:
        return True
    return keeps_quantization(graph_module, node) and not is_linear_in_place(graph_module, node)


def module_name(graph_module: fx.GraphModule, node: fx.Node) -> str:
    """The module that a node calls, else the innermost one whose forward calls its function."""
    if node.op == "call_module":
        return str(node.target)
    stack = node.meta.get("nn_module_stack")
    return next(reversed(stack)) if stack else "forward"


def _sources(node: fx.Node, names: set[str]) -> list[str]:
    """The operators whose values a node passes on: itself, or that in front of a quantizer."""
    if node.name in names:
        return [node.name]
    return [name for source in node.all_input_nodes for name in _sources(source, names)]


class _Counted(fx.Interpreter):
    """Runs a marked graph, and keeps the shape and the MACs of each operator."""

    def __init__(self, form: fx.GraphModule) -> None:
        super().__init__(form)
        self.macs: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        name = n.meta.get(OPERATOR)
        if name is None:
            return super().run_node(n)
        with FlopCounterMode(display=False) as counter:
            value = super().run_node(n)
        first = first_tensor(value)
        self.macs[name] = counter.get_total_flops() // 2
        self.shapes[name] = () if first is None else tuple(first.shape)
        return value


class _Timed(fx.Interpreter):
    """Runs a marked graph, and adds the time of each operator to its list."""

    def __init__(self, form: fx.GraphModule) -> None:
        super().__init__(form)
        self.seconds: dict[str, list[float]] = {}

    def run_node(self, n: fx.Node) -> Any:
        arguments, named = self.fetch_args_kwargs_from_env(n)
        started = time.perf_counter()
        value = getattr(self, n.op)(n.target, arguments, named)
        if OPERATOR in n.meta:
            self.seconds.setdefault(n.meta[OPERATOR], []).append(time.perf_counter() - started)
        return value


def _times(form: fx.GraphModule, image: Tensor, passes: int) -> dict[str, float]:
    if not passes:
        return {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _Timed(form).run(image)  # the first pass of a process allocates and chooses kernels
        timed = _Timed(form)
        for _ in range(passes):
            timed.run(image)
    finally:
        torch.set_num_threads(threads)
    return {name: median(measured) for name, measured in timed.seconds.items()}


def first_tensor(value: Any) -> Tensor | None:
    """The first tensor in a value or in a tuple of values; None where there is none."""
    if isinstance(value, tuple | list):
        return next((tensor for one in value if (tensor := first_tensor(one)) is not None), None)
    return value if isinstance(value, Tensor) else None
