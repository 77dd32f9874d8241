"""Weights that a module computes before every call, computed once."""

import torch
from torch import nn
from torch.nn.utils import parametrize


@torch.no_grad()
def settle_weights_(network: nn.Module) -> nn.Module:
    """Make weights that ``torch.nn.utils`` computes (weight_norm, spectral_norm) parameters of their own.

    Their values are those of eval mode. Training then changes the weight, and no longer what it was computed from.
    """
    for module in list(network.modules()):
        training = module.training
        module.eval()
        if parametrize.is_parametrized(module):
            _settle_(module)
        for hook in list(module._forward_pre_hooks.values()):
            if type(hook).__module__.startswith("torch.nn.utils.") and hasattr(hook, "remove"):
                hook.remove(module)
                kept = [(key, other) for key, other in module._forward_pre_hooks.items() if other is not hook]
                module._forward_pre_hooks = type(module._forward_pre_hooks)(kept)
        module.train(training)
    return network


def _settle_(module: nn.Module) -> None:
    """In place of ``remove_parametrizations``, which changes a class that copies of the module share."""
    names = list(module.parametrizations)  # type: ignore[arg-type]
    values = {name: getattr(module, name).detach().clone() for name in names}
    learn = {name: any(p.requires_grad for p in module.parametrizations[name].parameters()) for name in names}  # type: ignore[index, union-attr]
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module._modules["parametrizations"]
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value, learn[name]))
