"""Networks by where they come from: ``torchvision/NAME``, ``timm/NAME``, or a Python file of the user's own."""

import difflib
import inspect
from pathlib import Path
from typing import Any

import torch
from torch import nn

from model.errors import InputError
from model.network.user_network import built_once, register_network

LIBRARIES = ("torchvision/", "timm/")
_QUICK: dict[str, Any] = {"init_weights": False}
_OPTIONS = {"googlenet": _QUICK | {"aux_logits": False}, "inception_v3": _QUICK}
"""Of networks of torchvision whose own initialization takes long."""


def named_network(name: str, input_size: int, where: str) -> nn.Module:
    """Build a network of any task in eval mode; one of a library has random weights, the same each time.

    ``where`` is the flag that gave the name. Raises InputError for a name that the library does not have, and for a
    file that does not run or whose network does not take images of ``input_size``.
    """
    torch.manual_seed(0)
    if not name.startswith(LIBRARIES):
        return built_once(register_network(Path(name)), input_size)[0].eval()
    library, _, model = name.partition("/")
    known = _timm_models() if library == "timm" else _torchvision_models()
    if model not in known:
        near = difflib.get_close_matches(model, known, 3) or known[:3]
        hint = "A file of your own works too: docs/own.md."
        raise InputError(where, f"is not a network of {library}", f"one like {', '.join(near)}", hint, value=repr(name))
    return (_timm(model) if library == "timm" else _torchvision(model)).eval()


def _timm_models() -> list[str]:
    import timm

    return list(timm.list_models())


def _timm(model: str) -> nn.Module:
    import timm

    network: nn.Module = timm.create_model(model, pretrained=False)
    return network


def _torchvision_models() -> list[str]:
    import torchvision

    return list(torchvision.models.list_models())


def _torchvision(model: str) -> nn.Module:
    """With no weights to download, and without the second output that segmentation networks have for training."""
    import torchvision

    builder = torchvision.models.get_model_builder(model)
    options = dict(_OPTIONS.get(model, {}))
    asked = inspect.signature(builder).parameters
    if "weights_backbone" in asked:
        options["weights_backbone"] = None
    if "aux_loss" in asked:
        options["aux_loss"] = False
    network: nn.Module = builder(weights=None, **options)
    return network
