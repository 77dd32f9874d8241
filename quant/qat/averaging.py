"""Averaged weights (Izmailov et al. 2018, arXiv:1803.05407): what is validated and handed on is a mean over steps.

Single weights keep crossing the border between two integers, and the network of the last step is one draw of where they
stand (Nagel et al. 2022, arXiv:2203.11086).
"""

import copy

import torch
from torch import Tensor, fx

from quant.prepare import quant_convs, quantizers
from quant.qat.bn_statistics import MovingGrids


class Averaged:
    """A copy of a network in training whose parameters and BatchNorm statistics are means over the steps so far.

    The latest ``window`` steps or so count: the weight of older ones falls off exponentially.
    """

    def __init__(self, trained: fx.GraphModule, window: float) -> None:
        self.trained, self.window = trained, max(window, 1.0)
        self.network = copy.deepcopy(trained)
        self.steps = 0

    @torch.no_grad()
    def update_(self) -> None:
        """Take in the network as it is after a step."""
        self.steps += 1
        share = 1.0 / min(self.steps, self.window)
        for mean, value in zip(self._averages(self.network), self._averages(self.trained), strict=True):
            mean.lerp_(value, share)

    @torch.no_grad()
    def sync_(self) -> fx.GraphModule:
        """The averaged network with ranges and modes of the trained one, its weight grids scaled to its own factors."""
        quantized = quantizers(self.trained)
        for name, quantizer in quantizers(self.network).items():
            original = quantized[name]
            if original.learned is None:
                quantizer.set_mode(original.mode)
            for mine, theirs in zip(quantizer.buffers(recurse=False), original.buffers(recurse=False), strict=True):
                mine.copy_(theirs)
        grids = MovingGrids(self.network)
        grids.factors = MovingGrids(self.trained).factors
        grids.follow_()
        return self.network

    def state_dict(self) -> dict[str, int]:
        """How many steps are in the mean; the network itself is kept beside it."""
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there."""
        self.steps = state["steps"]

    @staticmethod
    def _averages(network: fx.GraphModule) -> list[Tensor]:
        statistics = [
            value
            for conv in quant_convs(network).values()
            if conv.bn is not None
            for value in (conv.bn.running_mean, conv.bn.running_var)
            if value is not None
        ]
        return [*network.parameters(), *statistics]
