"""A network as a torch.fx graph in which all sizes are constants, but for that of the batch.

``torch.fx`` alone records what a forward does with ``x.shape`` as values of the graph, and cannot branch on them. Here
every recorded value has its value for an example beside it, which answers such questions. The size of the batch stays
free: the network is recorded with two and with three images, and what differs in proportion is the batch.
"""

import copy
import inspect
import itertools
import operator
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

_SHAPES = ("view", "reshape", torch.reshape)
BATCHES = (2, 3)
"""With how many images a network is recorded."""
_INSIDE = (os.path.dirname(torch.__file__), __file__, "<")
_ANSWERED = ("size", "dim", "ndimension", "numel", "nelement", "is_floating_point", "is_contiguous", "stride")


class SizesError(ValueError):
    """A forward does with sizes, or with values, what a graph of constants cannot hold; ``node`` is where."""

    def __init__(self, problem: str, node: fx.Node | None = None) -> None:
        super().__init__(problem)
        self.node = node


@torch.no_grad()
def trace_with_sizes(network: nn.Module, example: Tensor) -> fx.GraphModule:
    """The graph of ``network`` for inputs of the example's size (1xCxHxW), any number at once.

    Module and parameter names, and train or eval mode, are kept; what a forward does in eval mode, with its defaults,
    is recorded. Tensors that it makes by itself become buffers. The ``meta`` of a node has its ``shape`` for two images
    and its ``dtype``, the dimensions that are ``free`` as they grow with the batch, or ``gives_tuple``, and the
    ``line`` (file:line) of the code that it is from. Raises fx.proxy.TraceError where the forward branches on values,
    and SizesError where it depends on the batch in other ways than in proportion.
    """
    graphs = []
    for count in BATCHES:
        tracer = _Tracer(example.repeat(count, *[1] * (example.dim() - 1)))
        root = _of_images_alone(copy.deepcopy(network).eval())
        graphs.append((tracer.trace(root), root))
    (graph, root), (other, other_root) = graphs
    graph._tracer_cls = fx.Tracer  # with which a copy from another process is made
    for module, source in zip(root.modules(), network.modules(), strict=True):
        module.training = source.training
    graph_module = fx.GraphModule(root, graph, type(network).__name__)
    graph_module.training = network.training
    free_batch_(graph_module, other, other_root)
    graph.lint()
    graph_module.recompile()
    return graph_module


def _of_images_alone(root: nn.Module) -> nn.Module:
    """The network with a forward that takes one argument: all others have their defaults."""
    kind = type(root)
    if len(inspect.signature(kind.forward).parameters) > 2:

        def forward(self: nn.Module, images: Tensor) -> Any:
            return kind.forward(self, images)

        root.__class__ = type(kind.__name__, (kind,), {"forward": forward})
    return root


class _Known(fx.Proxy):
    """A recorded value that knows what it is for the example, and answers with that what is asked of its size."""

    known: Any

    def __getattr__(self, k: str) -> Any:
        if k == "known":
            raise AttributeError(k)
        known = getattr(self.known, k, None)
        if isinstance(known, Tensor):  # such as x.mT
            return self.tracer.create_proxy("call_function", getattr, (self, k), {})
        return super().__getattr__(k) if callable(known) and k not in _ANSWERED else known

    def __len__(self) -> int:
        return len(self.known)

    def __iter__(self) -> Iterator[Any]:
        proxy: Any = self
        return (proxy[index] for index in range(len(self.known)))


class _Tracer(fx.Tracer):
    def __init__(self, example: Tensor) -> None:
        super().__init__()
        self.example = example
        self.running = False

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Known(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Modules of PyTorch, but for those made of others (nn.TransformerEncoderLayer), and those with hooks."""
        plain = not (list(m.children()) or m._forward_hooks or m._forward_pre_hooks)
        return plain and super().is_leaf_module(m, module_qualified_name)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *rest: Any, **named: Any) -> Any:
        proxy: Any = super().create_proxy(kind, target, args, kwargs, *rest, **named)
        proxy.node.meta["line"] = _line()
        if kind != "output":
            values, named_values = fx.node.map_aggregate((args, kwargs), _value)
            self.running = True
            try:
                proxy.known = self._result(kind, target, values, named_values)
            finally:
                self.running = False
            if isinstance(proxy.known, tuple) and kind == "call_module":
                proxy.node.meta["gives_tuple"] = True
            if isinstance(proxy.known, Tensor):
                proxy.node.meta.update(shape=tuple(proxy.known.shape), dtype=proxy.known.dtype)
        return proxy

    def _result(self, kind: str, target: Any, values: Any, named: Any) -> Any:
        if kind == "placeholder":
            return self.example
        if kind == "call_function":
            return target(*values, **named)
        if kind == "call_method":
            return getattr(values[0], target)(*values[1:], **named)
        if kind == "call_module":
            return self.root.get_submodule(target)(*values, **named)
        owner, _, leaf = target.rpartition(".")
        return getattr(self.root.get_submodule(owner), leaf)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if self.running:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        return attr_val if self.running else super().getattr(attr, attr_val, parameter_proxy_cache)


def _line() -> str:
    """Where the network's own code calls what is being recorded."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_name != "trace_with_sizes":
        if not frame.f_code.co_filename.startswith(_INSIDE):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def _value(argument: Any) -> Any:
    return argument.known if isinstance(argument, _Known) else argument


def free_batch_(graph_module: fx.GraphModule, other: fx.Graph, other_root: nn.Module) -> None:
    """Put the batch's size where the graph, of two images, differs from the ``other``, of three.

    Tensors that the forward makes for each image (``_tensor_constant...``) are made for any number. Raises SizesError
    where the two differ in other ways than in proportion.
    """
    nodes, others = list(graph_module.graph.nodes), list(other.nodes)
    pairs = itertools.zip_longest(nodes, others)
    other_node = next((a or nodes[-1] for a, b in pairs if not (a and b) or (a.op, a.target) != (b.op, b.target)), None)
    if other_node is not None:
        name = graph_module._get_name()
        raise SizesError(f"{name} runs other operators with {BATCHES[1]} images than with {BATCHES[0]}.", other_node)
    images = next(node for node in nodes if node.op == "placeholder")
    for node, twin in zip(nodes, others, strict=True):
        sizes = zip(node.meta.get("shape", ()), twin.meta.get("shape", ()), strict=True)
        node.meta["free"] = tuple(dim for dim, (a, b) in enumerate(sizes) if a != b)
        if node.op != "placeholder":
            _replace_batch_(node, twin, images)
        if node.op == "get_attr" and str(node.target).startswith("_tensor_constant"):
            _free_constant_(graph_module, node, getattr(other_root, str(node.target)), images)


def _free_constant_(graph_module: fx.GraphModule, node: fx.Node, theirs: Tensor, images: fx.Node) -> None:
    ours = getattr(graph_module, str(node.target))
    if ours.shape == theirs.shape:
        return
    if (len(ours), len(theirs)) != BATCHES or not torch.equal(ours[:1].expand_as(theirs), theirs):
        raise SizesError(f"a tensor of {list(ours.shape)} that the forward makes differs from image to image.", node)
    graph_module.register_buffer(str(node.target), ours[:1].clone())
    with graph_module.graph.inserting_after(node):
        size = graph_module.graph.call_method("size", (images, 0))
    with graph_module.graph.inserting_after(size):
        each = graph_module.graph.call_method("expand", (node, size, *[-1] * (ours.dim() - 1)))
    each.meta = dict(node.meta)
    node.replace_all_uses_with(each, delete_user_cb=lambda user: user is not each)


def _replace_batch_(node: fx.Node, twin: fx.Node, images: fx.Node) -> None:
    ours, theirs = _numbers(node), _numbers(twin)
    differing = [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b]
    if not differing:
        return
    if any(isinstance(number, float) or a * BATCHES[1] != b * BATCHES[0] for a, b in differing for number in (a, b)):
        name = node._pretty_print_target(node.target)
        raise SizesError(f"{name} depends on the batch as {differing}, not in proportion to it.", node)
    if node.target in _SHAPES:
        sizes = [-1 if a != b else a for a, b in zip(node.meta["shape"], twin.meta["shape"], strict=True)]
        if sizes.count(-1) == 1 and 0 not in sizes:
            node.args = (node.args[0], sizes) if node.op == "call_function" else (node.args[0], *sizes)
            node.kwargs = {}
            return
    graph, position = node.graph, iter(zip(ours, theirs, strict=True))

    def batch(argument: Any) -> Any:
        if not _is_number(argument):
            return argument
        a, b = next(position)
        if a == b:
            return argument
        with graph.inserting_before(node):
            size = graph.call_method("size", (images, 0))
            times = a // BATCHES[0]
            return size if times == 1 else graph.call_function(operator.mul, (size, times))

    node.args, node.kwargs = fx.node.map_aggregate((node.args, node.kwargs), batch)


def _numbers(node: fx.Node) -> list[int | float]:
    """All numbers among the arguments, in order."""
    found: list[int | float] = []

    def keep(argument: Any) -> Any:
        if _is_number(argument):
            found.append(argument)
        return argument

    fx.node.map_aggregate((node.args, node.kwargs), keep)
    return found


def _is_number(argument: Any) -> bool:
    return isinstance(argument, int | float) and not isinstance(argument, bool)
