"""Where a prepared network rounds, in the order in which it runs, and runs with chosen quantizers on."""

import copy
import operator
from dataclasses import dataclass

from torch import Tensor, fx

from quant.graph import module_of, set_module
from quant.prepare import QuantConv, quant_convs, quantizers

_IN_PLACE = {operator.iadd: operator.add, operator.imul: operator.mul}
Values = dict[fx.Node, Tensor]


@dataclass(frozen=True)
class QuantizerSite:
    """Where a quantizer rounds: its name, the node whose value it rounds first, and all nodes that it can change."""

    name: str
    kind: str
    node: fx.Node
    reaches: frozenset[fx.Node]


def quantizer_sites(prepared: fx.GraphModule) -> tuple[QuantizerSite, ...]:
    """All quantizers that are on, in the order in which they first round."""
    named = quantizers(prepared)
    starts: dict[str, list[fx.Node]] = {}
    for node in prepared.graph.nodes:
        if isinstance(module_of(prepared, node), QuantConv):
            starts[f"{node.target}.weight_quantizer"] = [node]
        elif str(node.target) in named:
            starts.setdefault(str(node.target), []).append(node)
    return tuple(
        QuantizerSite(name, "weight" if named[name].weight else "activation", nodes[0], _reached(prepared, nodes))
        for name, nodes in starts.items()
        if named[name].mode != "off"
    )


def _reached(prepared: fx.GraphModule, starts: list[fx.Node]) -> frozenset[fx.Node]:
    reached = set(starts)
    for node in prepared.graph.nodes:
        if any(source in reached for source in node.all_input_nodes):
            reached.add(node)
    return frozenset(reached)


class SitesRunner(fx.Interpreter):
    """Runs a copy of a prepared network with chosen sites on, and computes only what these change.

    A convolution whose weight is off is that of ``original``.
    """

    def __init__(self, prepared: fx.GraphModule, original: fx.GraphModule) -> None:
        super().__init__(_without_in_place(prepared), garbage_collect_values=False)
        self.sites = quantizer_sites(self.module)  # type: ignore[arg-type]
        self.quantizers = quantizers(self.module)
        self.result = next(node for node in self.graph.nodes if node.op == "output")
        self.rounding, self.plain = quant_convs(self.module), quant_convs(copy.deepcopy(original))
        for conv in self.plain.values():
            conv.weight_quantizer.set_mode("off")
        self.switch(False, *self.sites)

    def switch(self, on: bool, *chosen: QuantizerSite) -> None:
        """Turn sites on or off."""
        for site in chosen:
            self.quantizers[site.name].set_mode("freeze" if on else "off")
            if site.kind == "weight":
                name = str(site.node.target)
                set_module(self.module, name, (self.rounding if on else self.plain)[name])  # type: ignore[arg-type]

    def at(self, site: QuantizerSite, values: Values) -> tuple[Tensor, Tensor, int]:
        """The weight, or the value of ``values``, at the site in float, the same rounded, and its channel dimension."""
        if site.kind == "weight":
            name = str(site.node.target)
            return self.plain[name].folded()[0], self.rounding[name].rounded()[0], 0
        value = values[site.node.args[0]]  # type: ignore[index]
        return value, self.quantizers[site.name](value), 1

    def values(self, images: Tensor) -> Values:
        """Every value of the graph, with the sites as they are."""
        self.run(images)
        return self.env

    def changed(self, values: Values, site: QuantizerSite) -> Values:
        """The values again, those that ``site`` reaches computed anew with the sites as they are."""
        self.run(initial_env={node: value for node, value in values.items() if node not in site.reaches})
        return self.env


def _without_in_place(prepared: fx.GraphModule) -> fx.GraphModule:
    """A copy whose operators leave their inputs alone, as these are compared afterwards."""
    graph_module = copy.deepcopy(prepared)
    for module in graph_module.modules():
        if hasattr(module, "inplace"):
            setattr(module, "inplace", False)  # noqa: B010 (modules have no such declared attribute)
    for node in graph_module.graph.nodes:
        node.target = _IN_PLACE.get(node.target, node.target)
        if "inplace" in node.kwargs:
            node.update_kwarg("inplace", False)
    return graph_module
