"""Adam (Kingma and Ba 2015, arXiv:1412.6980) that measures every parameter in steps of the integer grid it writes to.

Adam moves each element by about the learning rate, however large the element is. After equalization neighbouring
channels differ by orders of magnitude, and a step that one does not notice wipes out the other, although their
function and their rounding noise are the same. And whether a weight changes at all depends on its grid: what int8 does
not notice is most of a step of 4 bits. Here a learning rate of 0.1 moves a weight by a tenth of a step of its own
quantizer, whatever its bits. A bias moves in steps of the output's quantizer, a factor of BatchNorm in parts of itself.
Then training does not depend on how the channels happen to be scaled, as in layer-wise adaptive rates (You et al. 2017,
arXiv:1708.03888) but by quantizer.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, fx
from torch.optim import Optimizer

from quant.fake_quantize import FakeQuantize
from quant.graph import bn_factor, module_of
from quant.prepare import QuantConv
from quant.qat.learnable_fake_quantize import LearnableFakeQuantize

_BETAS = (0.9, 0.999)
_EPS = 1e-12
_OWN = 1.0 / 127.0
"""Of itself: the unit of what has no grid of its own, as if it stood at the end of one of 8 bits."""
_CLIP = _OWN
"""Largest norm of the whole gradient, by units: no batch counts more than another in the moments."""
_BIAS_STEPS = 2.0
"""Of the output's grid, which has as many on either side of a symmetric range as there are in that of a weight."""
_RANGE_SPEED = 10.0
"""Of learned ranges: most weights are a fraction of their range, and a scale shall change as fast as they do."""
_DEAD = 1e-9
"""Above what a BatchNorm factor of zero leaves (``bn_factor``)."""


class GridAdam(Optimizer):
    """Adam with a unit for each parameter, a tensor that broadcasts to it; with decoupled weight decay."""

    def __init__(self, units: Mapping[Tensor, Tensor], learning_rate: float, weight_decay: float) -> None:
        super().__init__(list(units), {"lr": learning_rate, "weight_decay": weight_decay, "steps": 0})
        for parameter, unit in units.items():
            zeros = {name: torch.zeros_like(parameter, requires_grad=False) for name in ("mean", "square")}
            self.state[parameter] = {"unit": unit.detach().to(parameter), **zeros}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step; parameters without a gradient stay."""
        (group,) = self.param_groups
        group["steps"] += 1
        correction = [1.0 - beta ** group["steps"] for beta in _BETAS]
        gradients = {p: p.grad * self.state[p]["unit"] for p in group["params"] if p.grad is not None}
        norm = torch.stack([gradient.square().sum() for gradient in gradients.values()]).sum().sqrt()
        shrink = _CLIP / norm.clamp_min(_CLIP)
        for parameter, gradient in gradients.items():
            state = self.state[parameter]
            gradient *= shrink
            state["mean"].lerp_(gradient, 1.0 - _BETAS[0])
            state["square"].mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1.0 - _BETAS[1])
            direction = (state["mean"] / correction[0]) / ((state["square"] / correction[1]).sqrt() + _EPS)
            parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
            parameter.sub_(direction * state["unit"] * group["lr"])


@torch.no_grad()
def grid_units(prepared: fx.GraphModule) -> dict[Tensor, Tensor]:
    """The unit of every parameter that learns; the ranges of ``prepared`` are known.

    A parameter that belongs to no quantized convolution is measured by its own largest element.
    """
    units: dict[Tensor, Tensor] = {}
    for node in prepared.graph.nodes:
        conv = module_of(prepared, node)
        if isinstance(conv, QuantConv):
            output = module_of(prepared, next(iter(node.users)))
            assert isinstance(output, FakeQuantize)
            units |= _conv_units(conv, output)
    for module in prepared.modules():
        if isinstance(module, LearnableFakeQuantize):
            units[module.scale] = _RANGE_SPEED * _OWN * module.scale
            units[module.zero_point] = torch.full_like(module.zero_point, _RANGE_SPEED * _OWN * module.quant_max)
    named = {p: units.get(p, _OWN * p.abs().amax()) for p in prepared.parameters() if p.requires_grad}
    return {parameter: unit.detach().clone() for parameter, unit in named.items()}


def _conv_units(conv: QuantConv, output: FakeQuantize) -> dict[Tensor, Tensor]:
    weight, bias = conv.folded()
    written = _step(conv.weight_quantizer, weight)
    shifted = _BIAS_STEPS * _step(output, weight if bias is None else bias)
    bn = conv.bn
    units: dict[Tensor | None, Tensor] = {conv.conv.weight: written.reshape(-1, 1, 1, 1), conv.conv.bias: shifted}
    if bn is not None:
        factor = bn_factor(bn).abs()
        before = torch.where(factor > _DEAD, 1.0 / factor, 0.0)  # what a step of 1 behind BatchNorm is in front of it
        units = {conv.conv.weight: (written * before).reshape(-1, 1, 1, 1), conv.conv.bias: shifted * before}
        units |= {bn.weight: _OWN * bn.weight.abs(), bn.bias: shifted}
    return {parameter: unit for parameter, unit in units.items() if parameter is not None}


def _step(quantizer: FakeQuantize, values: Tensor) -> Tensor:
    """One step of the integer grid, which a quantizer that is off may have all the same; else one of 8 bits."""
    if quantizer.learned is not None:
        return quantizer.learned.scale
    if not torch.isfinite(quantizer.low).all() and not quantizer.fixed:
        return _OWN * values.abs().amax().reshape(1)
    return quantizer.scale
