"""Bias correction (Nagel et al. 2019, arXiv:1906.04721, section 4.2): remove the mean error that rounding leaves.

The error of a rounded weight is fixed, and what leaves an activation such as ReLU or SiLU has a mean, so that every
output channel is shifted by a constant, which the bias can absorb. Unlike the paper's, the mean here is weighted by the
squared slope of the activation behind: what ReLU cuts off and SiLU flattens does not count.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from model.progress import Progress, ignore_progress
from quant.calibrate import Images
from quant.fake_quantize import FakeQuantize
from quant.graph import module_of
from quant.prepare import QuantConv, elementwise_consumers
from quant.recipe import BiasCorrectionSpec

_DEAD = 1e-9


@torch.no_grad()
def correct_bias(
    prepared: fx.GraphModule,
    spec: BiasCorrectionSpec,
    images: Images,
    progress: Progress = ignore_progress,
    original: fx.GraphModule | None = None,
) -> fx.GraphModule:
    """A copy of a calibrated network whose biases cancel the mean error of each convolution's outputs.

    Args:
        prepared: in eval mode with frozen quantizers; those that are off stay off.
        spec: each layer alone (``fast``), or in execution order with all before it rounded and corrected.
        images: normalized calibration images Nx3xHxW, of which the first ``spec.images`` are run at once.
        original: the calibrated network before anything was written into its weights (rounding), by default
            ``prepared`` itself; its float weights give the outputs to aim for.
    """
    prepared = copy.deepcopy(prepared)
    device = next(prepared.parameters()).device
    _Corrector(prepared, prepared if original is None else original.to(device), spec.method, progress).run(
        _Values.same(images[: spec.images].to(device))
    )
    return prepared


@dataclass(frozen=True)
class _Values:
    """A value in the float network, and the same with everything in front rounded."""

    exact: Tensor
    rounded: Tensor

    @staticmethod
    def same(value: Tensor) -> "_Values":
        return _Values(value, value)


class _Corrector(fx.Interpreter):
    """Runs the float and the rounded network side by side and corrects every convolution as it comes by."""

    def __init__(
        self,
        prepared: fx.GraphModule,
        original: fx.GraphModule,
        method: str,
        progress: Progress,
    ) -> None:
        super().__init__(prepared)
        self.original, self.method, self.progress = original, method, progress
        activations = elementwise_consumers(prepared)
        self.activations = {
            node: activations[str(q.target)]
            for node in prepared.graph.nodes
            for q in node.users
            if str(q.target) in activations
        }
        self.steps, self.step = len(prepared.graph.nodes), 0

    def run_node(self, n: fx.Node) -> Any:
        self.step += 1
        self.progress({"step": self.step, "steps": self.steps})
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        module = module_of(self.module, n)  # type: ignore[arg-type]
        if n.op in ("placeholder", "output", "get_attr"):
            return super().run_node(n)
        if isinstance(module, FakeQuantize):
            value = args[0]
            return value if self.method == "fast" else _Values(value.exact, module(value.rounded))
        if isinstance(module, QuantConv):
            return self._convolution(n, module, args[0])
        call = getattr(self, n.op)
        exact = call(n.target, *_side((args, kwargs), "exact"))
        if self.method == "fast":
            return _Values.same(exact)
        return _Values(exact, call(n.target, *_side((args, kwargs), "rounded")))

    def _convolution(self, n: fx.Node, conv: QuantConv, x: _Values) -> _Values:
        source = module_of(self.original, n)
        assert isinstance(source, QuantConv)
        exact, rounded = conv.linear(x.exact, *source.folded()), conv.linear(x.rounded, *conv.rounded())
        slope = _slope(self.activations.get(n, conv.clamp), exact) ** 2
        shift = ((exact - rounded) * slope).sum((0, 2, 3)) / slope.sum((0, 2, 3)).clamp_min(_DEAD)
        conv.add_to_bias_(shift)
        exact = conv.clamp(exact)
        if self.method == "fast":
            return _Values.same(exact)
        return _Values(exact, conv.clamp(rounded + shift.reshape(1, -1, 1, 1)))


def _slope(activation: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The derivative of an elementwise activation at ``x``."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        return torch.autograd.grad(activation(x).sum(), x)[0]


def _side(values: Any, name: str) -> Any:
    return fx.node.map_aggregate(values, lambda value: getattr(value, name) if isinstance(value, _Values) else value)
