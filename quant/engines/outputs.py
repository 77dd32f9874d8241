"""What a file of an engine gives: its outputs in order, and the structure that they are put back into."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, fx

from model.tasks.nested import Nested, leaves, named
from quant.graph import finish

KEY = "outputs"
"""Under which files keep the structure; those of one tensor keep none."""


@dataclass(frozen=True)
class Outputs:
    """The names of all outputs in the file's order; ``kind`` is tensor, tuple or dict."""

    kind: str
    names: tuple[str, ...]

    @classmethod
    def of(cls, nested: Nested, lone: str = "output") -> "Outputs":
        """Those of a network's result: the keys of a dict, ``output_0`` and so on of a tuple, ``lone`` of a tensor."""
        if not isinstance(nested, Mapping | tuple | list):
            return cls("tensor", (lone,))
        return cls("dict" if isinstance(nested, Mapping) else "tuple", tuple(named(nested)))

    @classmethod
    def read(cls, text: str | None) -> "Outputs":
        """What ``text`` has written; one tensor where there is none."""
        if not text:
            return cls("tensor", ("",))
        document = json.loads(text)
        return cls(str(document["kind"]), tuple(map(str, document["names"])))

    @property
    def text(self) -> str | None:
        """As JSON, None of one tensor."""
        return None if self.kind == "tensor" else json.dumps(asdict(self))

    def nested(self, tensors: Sequence[Tensor]) -> Nested:
        """The tensors of the file in the structure that the network gives."""
        if self.kind == "dict":
            return dict(zip(self.names, tensors, strict=True))
        return tuple(tensors) if self.kind == "tuple" else tensors[0]


@torch.no_grad()
def flatten_outputs_(network: fx.GraphModule, example: Tensor, lone: str = "output") -> Outputs:
    """Have a graph give its outputs as a tuple in place, where it gives several; returns what they were."""
    found = Outputs.of(network(example), lone)
    (node,) = network.graph.find_nodes(op="output")
    given: Any = node.args[0]
    if found.kind == "dict":
        if isinstance(given, fx.Node):  # a dict made in one call: no operator gives one
            raise TypeError(f"the outputs are made by {given.target}, and not written as a dict")
        node.args = (tuple(given.values()),)
        finish(network)
    return found


def output_nodes(network: fx.GraphModule) -> list[fx.Node]:
    """The values that a graph gives, in the order of its outputs."""
    (node,) = network.graph.find_nodes(op="output")
    values: Mapping[str, Any] = leaves(node.args[0])
    return [value for value in values.values() if isinstance(value, fx.Node)]
