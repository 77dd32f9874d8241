"""The activations that are alive at once while a graph runs: what any engine has to keep in memory, at least."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from quant.inspection.operators import OPERATOR


@dataclass(frozen=True)
class Peak:
    """The most bytes of activations that are alive at once, and the operator at which they are."""

    size: int
    operator: str


@torch.no_grad()
def peak_activations(form: fx.GraphModule, image: Tensor) -> Peak:
    """Run a marked graph on ``image`` (1xCxHxW), node by node; a value is dropped after its last reader.

    Inputs and output of the operator that runs are alive; values that share memory, such as a reshaped one, count once;
    weights do not count. A conversion belongs to the operator before it.
    """
    live = _Live(form)
    live.run(image.clone())  # one of several images shares their memory
    return live.peak


class _Live(fx.Interpreter):
    def __init__(self, form: fx.GraphModule) -> None:
        super().__init__(form)
        self.peak, self.operator = Peak(0, "input"), "input"

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.operator = n.meta.get(OPERATOR, self.operator)
        held = [one for node, one in self.env.items() if node.op != "get_attr"]
        size = sum(_storages([*held, None if n.op in ("get_attr", "output") else value]).values())
        if size > self.peak.size:
            self.peak = Peak(size, self.operator)
        return value


def _storages(value: Any) -> dict[int, int]:
    """Address and bytes of all memory that tensors in a value lie in."""
    if isinstance(value, Tensor):
        storage = value.untyped_storage()
        return {storage.data_ptr(): storage.nbytes()}
    if isinstance(value, tuple | list):
        return {address: size for one in value for address, size in _storages(one).items()}
    return {}
