"""Encoders: an ImageNet classifier cut into four stages that give features at four scales.

EfficientNet-B0 (Tan and Le 2019, arXiv:1905.11946) of torchvision is the default: 24, 40, 80 and 112 channels
at strides 4, 8, 16 and 16. Encoders of timm come as ``timm/<name>``. What leaves this file has one form, made
for ``torch.fx``, fusing, equalization and int8 conversion: plain convolution, batch norm and activation in a
row, nothing in place, no drop path, paddings fixed at build. EfficientNets of timm get the module names of
torchvision's, so that a B0 of either loads the state dict of the other.
"""

import difflib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import timm
import torch
from timm.layers import activations as timm_activations
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from timm.layers.padding import pad_same_arg
from timm.models import _efficientnet_blocks as timm_blocks
from timm.models.efficientnet import EfficientNet
from timm.models.mobilenetv3 import MobileNetV3
from torch import Tensor, nn
from torchvision.models import efficientnet_b0
from torchvision.models.efficientnet import MBConv
from torchvision.ops import SqueezeExcitation

from model.errors import InputError
from model.network.tracing import trace_with_sizes

TIMM = "timm/"
# The parts of each block of timm's EfficientNet family in the order in which its forward applies them.
BLOCK_PARTS = {
    timm_blocks.ConvBnAct: "conv bn1 aa",
    timm_blocks.DepthwiseSeparableConv: "conv_s2d bn_s2d conv_dw bn1 aa se conv_pw bn2",
    timm_blocks.InvertedResidual: "conv_s2d bn_s2d conv_pw bn1 conv_dw bn2 aa se conv_pwl bn3",
    timm_blocks.EdgeResidual: "conv_exp bn1 aa se conv_pwl bn2",
}
PLAIN_ACTIVATIONS = {
    timm_activations.Swish: nn.SiLU,
    timm_activations.Sigmoid: nn.Sigmoid,
    timm_activations.HardSwish: nn.Hardswish,
    timm_activations.HardSigmoid: nn.Hardsigmoid,
    timm_activations.GELU: nn.GELU,
}
# Rewriting and tracing only reorder sums; beyond this share of the largest feature they changed the function.
REWRITE_TOLERANCE = 1e-4

Paddings = dict[nn.Module, tuple[int, ...]]  # of a convolution: left, right, top, bottom


class Encoder(nn.Module):
    """Four layers in a row whose outputs are the features, finest first; takes N x 3 x S x S normalized."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layer0, self.layer1, self.layer2, self.layer3 = layers

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the four feature maps."""
        stage_0 = self.layer0(images)
        stage_1 = self.layer1(stage_0)
        stage_2 = self.layer2(stage_1)
        stage_3 = self.layer3(stage_2)
        return stage_0, stage_1, stage_2, stage_3


class InvertedResidual(nn.Module):
    """A mobile block without drop path: ``block`` and, where shapes allow, the skip around it."""

    def __init__(self, block: nn.Module, skip: bool) -> None:
        super().__init__()
        self.block = block
        self.skip = skip

    def forward(self, features: Tensor) -> Tensor:
        """Apply the block, and add its input where it has a skip."""
        changed: Tensor = self.block(features)
        return changed + features if self.skip else changed


def build_encoder(name: str, input_size: int, pretrained: bool = False) -> nn.Module:
    """Build the encoder ``name`` for images of ``input_size`` pixels square, in train mode.

    Nothing is downloaded unless ``pretrained``. Raises InputError for an unknown name, and for a model that
    gives no four usable stages or does not survive rewriting; whatever a failing download raises.
    """
    if name.startswith(TIMM):
        return _timm_encoder(name, input_size, pretrained)
    if name != "efficientnet_b0":
        raise InputError("network.encoder", f"{name!r} is unknown", f"efficientnet_b0 or {TIMM}<name of a timm model>")
    return torchvision_encoder(efficientnet_b0(weights="IMAGENET1K_V1" if pretrained else None).features)


def torchvision_encoder(features: nn.Sequential) -> Encoder:
    """The first six pieces of torchvision's EfficientNet ``features`` as an encoder, with their weights."""
    for layer in features:
        for key, block in list(layer.named_children()):
            if isinstance(block, MBConv):
                setattr(layer, key, InvertedResidual(block.block, block.use_res_connect))
    encoder = Encoder([features[0:3], features[3], features[4], features[5]])
    _forbid_inplace_(encoder)
    return encoder


def _timm_encoder(name: str, input_size: int, pretrained: bool) -> nn.Module:
    model_name = name.removeprefix(TIMM)
    base_name = model_name.split(".")[0]
    if not timm.is_model(base_name):
        near = difflib.get_close_matches(base_name, timm.list_models(), n=1)
        hint = f"Did you mean {TIMM}{near[0]}?" if near else ""
        problem = f"is unknown to timm {timm.__version__}"
        raise InputError("network.encoder", problem, "a model of timm", hint, value=repr(name))
    generator = torch.Generator().manual_seed(0)
    example = torch.randn(1, 3, input_size, input_size, generator=generator)
    size: dict[str, Any] = {}
    try:
        config = timm.get_pretrained_cfg(model_name)
        if config is not None and config.fixed_input_size:  # those that have a parameter for each place
            size["img_size"] = input_size
        model = timm.create_model(model_name, pretrained=pretrained, **size)
        if isinstance(model, EfficientNet | MobileNetV3):
            return timm_efficientnet_encoder(model, example, name)
        picks = _four_stages([float(stage["reduction"]) for stage in getattr(model, "feature_info", [])], name)
        features = timm.create_model(model_name, pretrained=pretrained, features_only=True, out_indices=picks, **size)
        outputs, paddings = _run([features], example)
    except (RuntimeError, ValueError, TypeError, AssertionError, AttributeError, KeyError) as error:
        if pretrained or isinstance(error, InputError):
            raise
        only = f"; it takes images of {config.input_size[-1]}" if size and config is not None else ""
        raise _unusable(name, f"gives no features at {input_size} pixels ({_first_line(error)}){only}") from error
    shapes = [tuple(feature.shape) for feature in outputs[0]]
    if any(len(shape) != 4 or shape[2] != shape[3] for shape in shapes):
        raise _unusable(name, f"gives features of the shapes {shapes}")
    return _verified(_plain(features, paddings), example, outputs[0], name)


def timm_efficientnet_encoder(model: EfficientNet | MobileNetV3, example: Tensor, name: str) -> nn.Module:
    """Cut and rewrite a timm model of the EfficientNet family for images like ``example``, 1 x 3 x S x S.

    ``model`` is used up: it is rewritten in place. Raises InputError naming ``name`` where that fails.
    """
    pieces: list[nn.Module] = [nn.Sequential(model.conv_stem, model.bn1), *model.blocks]
    outputs, paddings = _run(pieces, example)
    picks = _four_stages([example.shape[-1] / output.shape[-1] for output in outputs], name)
    stem = _units([_plain(model.conv_stem, paddings), _plain(model.bn1, paddings)])[0]
    pieces = [stem, *(_plain(piece, paddings) for piece in pieces[1:])]
    groups = [pieces[start:stop] for start, stop in pairwise((0, *(pick + 1 for pick in picks)))]
    layers = [group[0] if len(group) == 1 else nn.Sequential(*group) for group in groups]
    return _verified(Encoder(layers), example, [outputs[pick] for pick in picks], name)


def _four_stages(strides: Sequence[float], name: str) -> tuple[int, int, int, int]:
    """The stages to use: the last at stride 4, the last at 8, first and last at 16, or last at 16 and 32."""
    at = {stride: [i for i, given in enumerate(strides) if given == stride] for stride in (4, 8, 16, 32)}
    if at[4] and at[8] and len(at[16]) >= 2:
        return at[4][-1], at[8][-1], at[16][0], at[16][-1]
    if at[4] and at[8] and at[16] and at[32]:
        return at[4][-1], at[8][-1], at[16][-1], at[32][-1]
    listed = ", ".join(f"{stride:g}" for stride in strides) or "none"
    raise _unusable(name, f"has stages at strides {listed}")


def _run(pieces: Sequence[nn.Module], example: Tensor) -> tuple[list[Any], Paddings]:
    """Run the pieces one after the other in eval mode: outputs, and the 'SAME' paddings at this size."""
    paddings: Paddings = {}

    def note(conv: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(conv, nn.Conv2d)
        size, kernel, stride, dilation = inputs[0].shape[-2:], conv.kernel_size, conv.stride, conv.dilation
        paddings[conv] = tuple(pad_same_arg(list(size), list(kernel), list(stride), list(dilation)))

    convs = [module for piece in pieces for module in piece.modules() if isinstance(module, Conv2dSame)]
    hooks = [conv.register_forward_pre_hook(note) for conv in convs]
    outputs = []
    features = example
    with torch.no_grad():
        for piece in pieces:
            _forbid_inplace_(piece)  # else a later activation would change an output that is kept
            features = piece.eval()(features)
            outputs.append(features)
    for hook in hooks:
        hook.remove()
    return outputs, paddings


def _plain(module: nn.Module, paddings: Paddings) -> nn.Module:
    """The same function and weights in plain ``torch.nn`` modules; containers are rewritten in place."""
    if type(module) in BLOCK_PARTS:
        parts = [getattr(module, part, None) for part in BLOCK_PARTS[type(module)].split()]
        used = [part for part in parts if part is not None and not isinstance(part, nn.Identity)]
        return InvertedResidual(_units([_plain(part, paddings) for part in used]), bool(module.has_skip))
    if isinstance(module, timm_blocks.SqueezeExcite):
        return _plain_squeeze_excitation(module)
    if isinstance(module, BatchNormAct2d):
        return _plain_batch_norm(module, paddings)
    if isinstance(module, Conv2dSame):
        return _plain_convolution(module, paddings)
    if type(module) in PLAIN_ACTIVATIONS:
        activation: nn.Module = PLAIN_ACTIVATIONS[type(module)]()
        return activation
    for key, child in list(module.named_children()):
        setattr(module, key, _plain(child, paddings))
    return module


def _units(parts: Sequence[nn.Module]) -> nn.Sequential:
    """Group parts as torchvision does: padding, convolution, batch norm, activation in one Sequential."""
    units: list[list[nn.Module]] = []
    for part in parts:
        layers = list(part) if isinstance(part, nn.Sequential) else [part]
        if units and isinstance(layers[0], nn.BatchNorm2d):
            units[-1].extend(layers)
        else:
            units.append(layers)
    return nn.Sequential(*(nn.Sequential(*unit) if len(unit) > 1 else unit[0] for unit in units))


def _plain_squeeze_excitation(module: timm_blocks.SqueezeExcite) -> nn.Module:
    squeeze, expand = module.conv_reduce, module.conv_expand
    plain: nn.Module = SqueezeExcitation(squeeze.in_channels, squeeze.out_channels)
    plain.fc1, plain.fc2 = squeeze, expand
    plain.activation, plain.scale_activation = _plain(module.act1, {}), _plain(module.gate, {})
    return plain


def _plain_batch_norm(module: BatchNormAct2d, paddings: Paddings) -> nn.Module:
    plain = nn.BatchNorm2d(module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats)
    weights = module.state_dict()
    plain.load_state_dict({name: weights[name] for name in plain.state_dict()})
    parts = [part for part in (module.drop, module.act) if not isinstance(part, nn.Identity)]
    return nn.Sequential(plain, *(_plain(part, paddings) for part in parts)) if parts else plain


def _plain_convolution(module: Conv2dSame, paddings: Paddings) -> nn.Module:
    left, right, top, bottom = paddings[module]
    symmetric = left == right and top == bottom
    padding = (top, left) if symmetric else (0, 0)
    same: Any = {key: getattr(module, key) for key in ("kernel_size", "stride", "dilation", "groups")}
    plain = nn.Conv2d(module.in_channels, module.out_channels, padding=padding, bias=module.bias is not None, **same)
    plain.load_state_dict(module.state_dict())
    return plain if symmetric else nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), plain)


def _forbid_inplace_(network: nn.Module) -> None:
    """Make all activations leave their input alone, for hooks, observers and per-layer comparison."""
    for module in network.modules():
        if hasattr(module, "inplace"):
            setattr(module, "inplace", False)  # noqa: B010 (modules have no such declared attribute)


def _verified(encoder: nn.Module, example: Tensor, expected: Sequence[Tensor], name: str) -> nn.Module:
    """The encoder in train mode, free of identity modules, once it traces and gives the expected features.

    Identities stand between convolution, batch norm and activation and would hide them from fusing.
    """
    _forbid_inplace_(encoder)
    try:
        traced = trace_with_sizes(encoder.eval(), example)
        for node in list(traced.graph.nodes):
            if node.op == "call_module" and isinstance(traced.get_submodule(node.target), nn.Identity):
                node.replace_all_uses_with(node.args[0])
                traced.graph.erase_node(node)
        traced.recompile()
        with torch.no_grad():
            features = traced(example)
    except Exception as error:  # whatever a model's forward does with a proxy
        raise _unusable(name, f"cannot be traced by torch.fx ({_first_line(error)})") from error
    for index, (feature, wanted) in enumerate(zip(features, expected, strict=True)):
        difference = float((feature - wanted).abs().max())
        if not difference <= REWRITE_TOLERANCE * max(1.0, float(wanted.abs().max())):
            raise _unusable(name, f"changes by {difference:.2g} at stage {index} when it is rewritten and traced")
    plain = isinstance(encoder, Encoder) and not any(isinstance(m, nn.Identity) for m in encoder.modules())
    return (encoder if plain else traced).train()


def _unusable(name: str, problem: str) -> InputError:
    return InputError(
        "network.encoder",
        problem,
        "a model with stages at strides 4, 8, 16 and 16 or 32 that torch.fx traces",
        "docs/own.md lists encoders that work.",
        value=repr(name),
    )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
