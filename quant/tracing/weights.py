"""Weights that a module computes before every call, computed once."""

from torch import nn
from torch.nn.utils import parametrize


def settle_weights_(network: nn.Module) -> nn.Module:
    """Make weights that ``torch.nn.utils`` computes (weight_norm, spectral_norm) parameters of their own.

    Training then changes the weight, and no longer what it was computed from.
    """
    for module in list(network.modules()):
        for name in list(getattr(module, "parametrizations", ())) if parametrize.is_parametrized(module) else ():
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)
        for hook in list(module._forward_pre_hooks.values()):
            if type(hook).__module__.startswith("torch.nn.utils.") and hasattr(hook, "remove"):
                hook.remove(module)
                module._forward_pre_hooks = type(module._forward_pre_hooks)(
                    (key, other) for key, other in module._forward_pre_hooks.items() if other is not hook
                )
    return network
