"""What state a network's quantizers are in, asserted before each phase."""

from collections import Counter
from collections.abc import Collection

from torch import nn

from quant.prepare import quant_convs, quantizers

PHASES = ("calibrate", "finetune", "evaluate")
_RECORDED_MODES = {"moving_average": "follow"}
"""Records keep this mode's former name, so that old and new ones have the same keys."""


class QuantizerStateError(AssertionError):
    """Quantizers, BatchNorm or dropout are in a state in which a phase's result would be wrong."""


def quantizer_state(network: nn.Module) -> dict[str, int | bool]:
    """Counts of quantizers by mode (weights and activations apart), train mode, live BatchNorm and dropout."""
    modes = Counter(
        f"{'weight' if q.weight else 'activation'}_{_RECORDED_MODES.get(q.mode, q.mode)}"
        for q in quantizers(network).values()
    )
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    dropouts = [m for m in network.modules() if isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0]
    return {
        "training": network.training,
        "bn_live": sum(norm.training for norm in norms),
        "bn_frozen": sum(conv.bn is not None and conv.bn_frozen for conv in quant_convs(network).values()),
        "dropout_live": sum(module.training for module in dropouts),
        **dict(sorted(modes.items())),
    }


def require_state(network: nn.Module, phase: str, kept_float: Collection[str] = ()) -> dict[str, int | bool]:
    """Assert what ``phase`` (calibrate, finetune, evaluate) needs, and return the state for the record.

    Calibration: eval mode, every activation observed, nothing quantized. Fine-tuning: train mode, every quantizer
    quantizing but those named in ``kept_float``, which may be off (mixed precision). Evaluation: eval mode, nothing
    observing or averaging, dropout and batch statistics off. Raises QuantizerStateError naming the first offenders.
    """
    if phase not in PHASES:
        raise ValueError(f"phase {phase!r} is unknown; expected one of {', '.join(PHASES)}")
    quantizing = ("moving_average", "freeze", "learn")
    wanted = {"calibrate": ("calibrate",), "finetune": quantizing, "evaluate": ("freeze", "off")}[phase]
    state = quantizer_state(network)
    wrong = [
        f"{name} is {q.mode}"
        for name, q in quantizers(network).items()
        if q.mode not in wanted and not (phase == "finetune" and q.mode == "off" and name in kept_float)
    ]
    if phase == "finetune" and not quantizers(network):
        wrong.append("the network has no quantizers")
    if network.training != (phase == "finetune"):
        wrong.append(f"the network is in {'train' if network.training else 'eval'} mode")
    if phase != "finetune" and state["bn_live"]:
        wrong.append(f"{state['bn_live']} BatchNorm layers use batch statistics")
    if state["dropout_live"] and phase != "finetune":
        wrong.append(f"{state['dropout_live']} dropout layers are live")
    if wrong:
        reasons = "; ".join(wrong[:3]) + (f"; and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        raise QuantizerStateError(f"{phase} cannot start: {reasons}. Expected quantizers in {' or '.join(wanted)}.")
    return state
