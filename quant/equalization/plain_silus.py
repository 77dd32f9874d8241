"""Which SiLUs can do without scales: those whose scales save little output noise for their size.

A SiLU with a scale a channel costs two products of whole tensors more where an engine has tables of 256 values
(``quant.engines.xnnpack``); without them it is one table.
"""

import torch
from torch import Tensor, fx

from quant.equalization.channel_classes import ChannelClasses
from quant.equalization.noise_model import NoiseModel

_ITERATIONS = 6
"""From the solution with all scales on, which is near."""
_SMALL = 1e-3
"""Share of all elements below which leaving out a SiLU's scales saves no time that could be measured."""


def left_out(
    model: NoiseModel, theta: Tensor, classes: ChannelClasses, elements: dict[fx.Node, int], loss_db: float
) -> Tensor:
    """The classes whose scale stays 1 (count,): as much of the SiLUs as keeps the predicted noise within ``loss_db``.

    Each SiLU's scales are left out alone, while those of the others are adapted, and the SiLUs with the least noise for
    each element come first. The rises nearly add up: for 40 and for 70 % of the default network's elements their sum
    was 1.1 and 3.4 dB, and so was the noise without all of them at once.

    Args:
        model: the predicted noise over the classes.
        theta: the log scales of least noise (count,).
        classes: of the network, with its SiLUs.
        elements: of each SiLU in one image.
        loss_db: how much noise may be added.
    """
    held = torch.zeros(model.count, dtype=torch.bool)
    least, total = float(model.noise(theta).sum()), sum(elements.values())
    choices = []
    for silu in classes.silus:
        number = torch.from_numpy(classes.values[silu])
        own = torch.zeros_like(held)
        own[number[number >= 0]] = True
        if own.any() and elements[silu] >= _SMALL * total:
            noise = float(model.noise(model.solve(own, theta, _ITERATIONS)).sum())
            choices.append((max(noise / least - 1.0, 0.0), elements[silu], own))
    allowed = 10.0 ** (loss_db / 10.0) - 1.0
    for rise, _, own in sorted(choices, key=lambda choice: choice[0] / choice[1]):
        if rise <= allowed:
            allowed -= rise
            held |= own
    return held


class _Sizes(fx.Interpreter):
    """Runs the graph and keeps how many elements some of its values have."""

    def __init__(self, graph_module: fx.GraphModule, nodes: tuple[fx.Node, ...]) -> None:
        super().__init__(graph_module)
        self.nodes = nodes
        self.found: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if n in self.nodes and isinstance(value, Tensor):
            self.found[n] = value.numel()
        return value


def elements(graph_module: fx.GraphModule, nodes: tuple[fx.Node, ...], image: Tensor) -> dict[fx.Node, int]:
    """How many elements each node's value has for an image 1xCxHxW, on the device of the network."""
    sizes = _Sizes(graph_module, nodes)
    sizes.run(image.to(next(graph_module.parameters()).device))
    return sizes.found
