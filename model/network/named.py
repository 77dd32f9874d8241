"""Networks by where they come from: ``torchvision/NAME``, ``timm/NAME``, or a Python file of the user's own."""

import difflib
import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.errors import InputError
from model.network.spec import LIBRARIES, NetworkSpec
from model.network.user_network import built_once, register_network

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
        return built_once(register_network(Path(name)), (3, input_size, input_size))[0].eval()
    _require_known(name, where)
    return _built(name).eval()


def library_network(spec: NetworkSpec) -> nn.Module:
    """Build a network of torchvision or timm for a task of so many classes, with random weights, in train mode.

    Of a network with several outputs by name, as torchvision's for segmentation, the first one is the network's. Raises
    InputError for a name that the library does not have, and a network that does not take these inputs.
    """
    name = spec.encoder if "/" in spec.encoder else f"torchvision/{spec.encoder}"
    _require_known(name, "network.encoder")
    try:
        network = _built(name, spec.classes, spec.shape[0])
        with torch.no_grad():
            outputs = network.eval()(torch.zeros(1, *spec.shape))
    except Exception as error:  # whatever a library raises on sizes that it does not take
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        problem = f"does not take inputs of {'x'.join(map(str, spec.shape))} ({why})"
        raise InputError("network.encoder", problem, "a network of such inputs", value=repr(spec.encoder)) from error
    if isinstance(outputs, dict):
        network = FirstOutput(network, next(iter(outputs)))
    return network.train()


class FirstOutput(nn.Module):
    """A network that gives the output of one name alone."""

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        self.network, self.name = network, name

    def forward(self, inputs: Tensor) -> Tensor:
        """That output."""
        output: Tensor = self.network(inputs)[self.name]
        return output


def _require_known(name: str, where: str) -> None:
    library, _, model = name.partition("/")
    known = _timm_models() if library == "timm" else _torchvision_models()
    if model not in known:
        near = difflib.get_close_matches(model, known, 3) or known[:3]
        hint = "A file of your own works too: docs/own.md."
        raise InputError(where, f"is not a network of {library}", f"one like {', '.join(near)}", hint, value=repr(name))


def _built(name: str, classes: int | None = None, channels: int = 3) -> nn.Module:
    """With random weights; ``classes`` None is what the library has."""
    library, _, model = name.partition("/")
    return _timm(model, classes, channels) if library == "timm" else _torchvision(model, classes, channels)


def _timm_models() -> list[str]:
    import timm

    return list(timm.list_models())


def _timm(model: str, classes: int | None, channels: int) -> nn.Module:
    import timm

    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    network: nn.Module = timm.create_model(model, pretrained=False, in_chans=channels, **options)
    return network


def _torchvision_models() -> list[str]:
    import torchvision

    return list(torchvision.models.list_models())


def _torchvision(model: str, classes: int | None, channels: int) -> nn.Module:
    """With no weights to download, and without the second output that segmentation networks have for training."""
    import torchvision

    builder = torchvision.models.get_model_builder(model)
    options = dict(_OPTIONS.get(model, {}))
    asked = inspect.signature(builder).parameters
    if "weights_backbone" in asked:
        options["weights_backbone"] = None
    if "aux_loss" in asked:
        options["aux_loss"] = False
    if classes is not None:
        options["num_classes"] = classes
    network: nn.Module = builder(weights=None, **options)
    if channels != 3:
        _take_channels_(network, channels)
    return network


def _take_channels_(network: nn.Module, channels: int) -> None:
    """Replace the first convolution by one of so many channels, as timm's ``in_chans`` does."""
    name, first = next((name, one) for name, one in network.named_modules() if isinstance(one, nn.Conv2d))
    parent, _, own = name.rpartition(".")
    options = {key: getattr(first, key) for key in ("kernel_size", "stride", "padding", "dilation")}
    conv = nn.Conv2d(channels, first.out_channels, bias=first.bias is not None, **options)
    setattr(network.get_submodule(parent), own, conv)
