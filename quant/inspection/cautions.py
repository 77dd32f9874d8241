"""What in a network costs accuracy or time in int8 and can be changed: found by looking, each in one sentence."""

from collections import Counter
from collections.abc import Sequence

from torch import fx, nn

from quant.fake_quantize import FakeQuantize
from quant.graph import ADDITIONS, module_of
from quant.inspection.operators import Operator, module_name
from quant.inspection.placement import Placement, islands, kinds
from quant.prepare import quant_convs
from quant.scaled_silu import scale_silus

_FEW_LEVELS = 16
"""An operand with fewer of the 256 levels of a sum, or a channel with fewer of the 127 of a weight, is called poor."""


def range_cautions(prepared: fx.GraphModule) -> list[str]:
    """Additions and concatenations of values with very unlike ranges, as the calibrated quantizers have them.

    The result has 256 levels over its whole range; a much smaller operand keeps few of them.
    """
    poor = []
    for node in prepared.graph.nodes:
        output = next((module for user in node.users if (module := _quantizer(prepared, user))), None)
        if output is None or not (node.target in ADDITIONS or getattr(node.target, "__name__", "") == "cat"):
            continue
        inputs = [module for source in node.all_input_nodes if (module := _quantizer(prepared, source))]
        levels = min((float((one.high - one.low) / output.scale) for one in inputs), default=256.0)
        if levels < _FEW_LEVELS:
            poor.append((levels, node))
    if not poor:
        return []
    levels, worst = min(poor, key=lambda one: one[0])
    count = f"{len(poor)} additions or concatenations join" if len(poor) > 1 else "One addition or concatenation joins"
    return [
        f"{count} values of very unlike ranges: in {module_name(prepared, worst)} ({worst.name}) one of them is left "
        f"with {levels:.0f} of 256 levels. Scale them alike in the network, or keep the result in float."
    ]


def _quantizer(prepared: fx.GraphModule, node: fx.Node) -> FakeQuantize | None:
    module = module_of(prepared, node)
    return module if isinstance(module, FakeQuantize) else None


def depthwise_cautions(prepared: fx.GraphModule) -> list[str]:
    """Depthwise convolutions whose channels have very unlike weights, BatchNorm folded in.

    Depthwise layers suffer most from that (Nagel et al. 2019, arXiv:1906.04721, section 3.1).
    """
    poor = []
    for name, conv in quant_convs(prepared).items():
        if conv.conv.groups != conv.conv.in_channels or conv.conv.groups == 1:
            continue
        largest = conv.folded()[0].detach().abs().flatten(1).amax(1)
        few = int((127 * largest / largest.max().clamp(min=1e-12) < _FEW_LEVELS).sum())
        if few * 4 > len(largest):
            poor.append((few / len(largest), name, few, len(largest)))
    if not poor:
        return []
    _, name, few, channels = max(poor)
    count = f"{len(poor)} depthwise convolutions have" if len(poor) > 1 else "One depthwise convolution has"
    return [
        f"{count} channels of very unlike weights: with per_tensor weights, {few} of {channels} channels of {name} are "
        f"left with fewer than {_FEW_LEVELS} of 127 levels. Use per_channel weights, or equalization (on by default), "
        "which evens them out."
    ]


def activation_cautions(float_network: fx.GraphModule) -> list[str]:
    """Activations that equalization cannot pass through, as they have no scale of their own (``quant/scaled_silu.py``).

    ``float_network`` has BatchNorm folded and is changed: its SiLUs get their scales.
    """
    scaled = scale_silus(float_network)
    modules = [module_of(scaled, node) for node in scaled.graph.nodes]
    left = Counter(type(one).__name__ for one in modules if isinstance(one, nn.SiLU | nn.Hardswish | nn.GELU))
    if not left:
        return []
    named = ", ".join(f"{count} {kind}" for kind, count in left.items())
    return [
        f"Equalization stops at {named}: channels of unlike ranges in front of them are not evened out. A ReLU, or a "
        "SiLU right behind a convolution, lets it pass."
    ]


def island_cautions(placement: Placement, operators: Sequence[Operator]) -> list[str]:
    """Float operators between int8 ones on an engine, and what the way there and back costs."""
    found = islands(placement, operators)
    if not found:
        return []
    conversions, values = sum(one.conversions for one in found), sum(one.values for one in found)
    largest = max(found, key=lambda one: one.values)
    inside = kinds(operator for one in found for operator in one.operators)
    word = "island" if len(found) == 1 else "islands"
    return [
        f"{placement.engine}: {len(found)} float {word} between int8 operators ({inside}): {conversions} conversions "
        f"of {values / 1e6:.2f} million values; the largest is {largest.operators[0].module}, with "
        f"{largest.conversions} of {largest.values / 1e6:.2f} million."
    ]
