"""What a forward computes from parameters alone, computed once."""

import copy

import torch
from torch import Tensor, fx, nn

from quant.graph import module_of, set_module


@torch.no_grad()
def evaluate_constants_(graph_module: fx.GraphModule) -> None:
    """Put the value of every subgraph that reads parameters and buffers alone in its place, for each of its readers.

    Standardized or scaled weights, embeddings that are looked up, a position bias that a small network gives. The value
    is a parameter where one of its sources is a parameter that learns: training then changes the value, and no longer
    what it was computed from.
    """
    sources = _sources(graph_module)
    values: dict[fx.Node, object] = {}
    for node in list(graph_module.graph.nodes):
        if node not in sources:
            continue
        values[node] = _value(graph_module, node, values)
        if (
            node.op != "get_attr"
            and isinstance(values[node], Tensor)
            and any(user not in sources for user in node.users)
        ):
            _keep_(graph_module, node, values[node], sources[node])  # type: ignore[arg-type]
    graph_module.graph.eliminate_dead_code()


def attribute(graph_module: nn.Module, name: str) -> Tensor:
    """The parameter or buffer of that dotted name."""
    owner, _, leaf = name.rpartition(".")
    value: Tensor = getattr(graph_module.get_submodule(owner), leaf)
    return value


def _sources(graph_module: fx.GraphModule) -> dict[fx.Node, tuple[str, ...]]:
    """The nodes that depend on parameters and buffers alone, each with the names of these."""
    found: dict[fx.Node, tuple[str, ...]] = {}
    for node in graph_module.graph.nodes:
        inputs = node.all_input_nodes
        if node.op == "get_attr":
            found[node] = (str(node.target),)
        elif node.op not in ("placeholder", "output") and found.keys() >= set(inputs) and not _is_random(node):
            names = [name for source in inputs for name in found[source]]
            module = module_of(graph_module, node)
            names += [f"{node.target}.{name}" for name, _ in module.named_parameters()] if module is not None else []
            found[node] = tuple(dict.fromkeys(names))
    return found


def _is_random(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _value(graph_module: fx.GraphModule, node: fx.Node, values: dict[fx.Node, object]) -> object:
    if node.op == "get_attr":
        return attribute(graph_module, str(node.target))
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda source: values[source])  # type: ignore[arg-type, return-value]
    if (module := module_of(graph_module, node)) is not None:
        return copy.deepcopy(module).eval()(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    return node.target(*args, **kwargs)  # type: ignore[operator]


def _keep_(graph_module: fx.GraphModule, node: fx.Node, value: Tensor, sources: tuple[str, ...]) -> None:
    """Store the value beside the largest of its sources."""
    largest = max(sources, key=lambda name: attribute(graph_module, name).numel(), default="constant")
    name = free_name(graph_module, f"{largest}_evaluated")
    learns = value.is_floating_point() and any(attribute(graph_module, source).requires_grad for source in sources)
    stored = value.detach().clone().contiguous()
    owner, _, leaf = name.rpartition(".")
    if learns:
        set_module(graph_module, name, nn.Parameter(stored))  # type: ignore[arg-type]
    else:
        graph_module.get_submodule(owner).register_buffer(leaf, stored)
    with graph_module.graph.inserting_before(node):
        kept = graph_module.graph.get_attr(name)
    kept.meta = {**node.meta, "source": largest}
    node.replace_all_uses_with(kept)


def free_name(graph_module: nn.Module, name: str) -> str:
    """The name, or where something has it, the first of ``name_2``, ``name_3`` ... that is free."""
    owner, _, leaf = name.rpartition(".")
    module, count = graph_module.get_submodule(owner), 1
    while hasattr(module, leaf if count == 1 else f"{leaf}_{count}"):
        count += 1
    return name if count == 1 else f"{name}_{count}"
