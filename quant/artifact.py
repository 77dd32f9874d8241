"""Networks on disk: a JSON description from which the structure is rebuilt, and tensors beside it.

Float tensors are safetensors. The int8 state dict holds quantized weights that safetensors has no type for; it is
written by ``torch.save`` and only ever read with ``weights_only=True``. Where weights have fewer than 8 bits it is a
safetensors file of bit-packed integers (``quant.engines.packed_weights``).
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import fx, nn

from model.errors import InputError
from model.network.build import build_network, example_image
from model.network.spec import NetworkSpec
from quant.engines import qnnpack
from quant.engines.catalog import is_exported
from quant.engines.exported import ExportedNetwork, file_name
from quant.engines.packed_weights import is_narrow, load_packed, save_packed
from quant.fake_quantize import current_mode
from quant.prepare import prepare, quantizers, wide
from quant.recipe import ALL_8BIT, WeightBits
from quant.scaled_silu import scale_silus
from quant.tracing.branches import merge_branches
from quant.tracing.trace import fuse_bn, trace

FORMS = ("float", "prepared", "int8")
_DESCRIPTION = "network.json"
_ONLY_WHERE_SET = ("weight_bits", "activation_bits", "float_sums", "merged", "traced")
_FLOAT_TENSORS = "network.safetensors"
_STATE_DICT, _PACKED = ".pt", ".packed.safetensors"


@dataclass(frozen=True)
class Form:
    """What a saved network is: which network, whether BatchNorm is folded, and how far it has come.

    ``scaled_silu``: its SiLUs carry scales. ``granularity`` and ``modes`` (quantizer name -> mode) belong to prepared
    and int8 networks only, ``engine`` to int8 ones and to files of an exporting engine, which may be float.
    ``weight_bits`` are the widths that its weights have or will have, by convolution; empty where all have 8 bits.
    ``merged``: its parallel branches are convolutions.
    """

    network: NetworkSpec
    fused: bool
    form: str
    scaled_silu: bool = False
    granularity: str | None = None
    engine: str | None = None
    weight_bits: WeightBits = field(default_factory=dict)
    merged: bool = False


def save_network(folder: Path, network: nn.Module, form: Form) -> None:
    """Write ``network`` into ``folder`` (which exists); the file of an exporting engine is there already."""
    named = quantizers(network)
    modes = {name: quantizer.mode for name, quantizer in named.items()}
    states: dict[str, Any] = {"modes": modes, "activation_bits": wide(named), "float_sums": []}
    if isinstance(network, fx.GraphModule) and form.form == "int8":
        states = {key: network.meta[key] for key in states}
    described = {**asdict(form), **states, "traced": form.form == "float" and isinstance(network, fx.GraphModule)}
    description = {key: value for key, value in described.items() if value or key not in _ONLY_WHERE_SET}
    if form.form == "int8" and not isinstance(network, ExportedNetwork):
        _save_int8(network, folder, form.weight_bits)
    elif not isinstance(network, ExportedNetwork):
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
        save_file(tensors, folder / _FLOAT_TENSORS)
    (folder / _DESCRIPTION).write_text(json.dumps(description, indent=1))


def _save_int8(network: nn.Module, folder: Path, weight_bits: WeightBits, stem: str = "network") -> Path:
    """Write the tensors of an int8 network of PyTorch; returns the file."""
    if is_narrow(weight_bits):
        path = folder / f"{stem}{_PACKED}"
        save_packed(network.state_dict(), weight_bits, path)
    else:
        path = folder / f"{stem}{_STATE_DICT}"
        torch.save(network.state_dict(), path)
    return path


def read_form(folder: Path) -> Form:
    """The form of the network saved in ``folder``; raises InputError where there is none."""
    description = _read_description(folder)
    try:
        return Form(
            NetworkSpec(**description["network"]),
            description["fused"],
            description["form"],
            description["scaled_silu"],
            description["granularity"],
            description["engine"],
            dict(description.get("weight_bits", {})),
            bool(description.get("merged", False)),
        )
    except (KeyError, TypeError) as error:
        raise InputError(
            str(folder), f"{_DESCRIPTION} does not fit ({error})", "a network folder of this version"
        ) from error


def load_network(folder: str | Path) -> nn.Module:
    """Rebuild the network saved in ``folder``, on the CPU and in eval mode; an int8 network selects its engine.

    Raises InputError where the folder does not hold a network that this version can read.
    """
    folder = Path(folder)
    form = read_form(folder)
    if form.engine is not None and is_exported(form.engine):
        return ExportedNetwork(form.engine, folder / file_name(form.engine))
    if form.form == "prepared":
        return load_prepared(folder)
    if form.form == "float":
        network = _built(form)
        if _read_description(folder).get("traced"):
            network = trace(network, example_image(form.network))
        _load_tensors_(network, folder, _FLOAT_TENSORS)
        return network.eval()
    prepared = _built_prepared(folder, form)
    prepared.meta["float_sums"] = _read_description(folder).get("float_sums", [])  # by ranges, which it lacks
    int8 = qnnpack.convert(prepared, form.engine or qnnpack.ENGINE)
    _load_tensors_(int8, folder, f"network{_PACKED if is_narrow(form.weight_bits) else _STATE_DICT}", form.weight_bits)
    return int8


def load_prepared(folder: Path) -> fx.GraphModule:
    """Rebuild the prepared network saved in ``folder``, on the CPU and in eval mode.

    Raises InputError where the folder holds none that this version can read.
    """
    form = read_form(folder)
    if form.form != "prepared":
        raise InputError(str(folder), "is not a prepared network", "form='prepared'", value=f"form={form.form!r}")
    prepared = _built_prepared(folder, form)
    _load_tensors_(prepared, folder, _FLOAT_TENSORS)
    return prepared


def _built(form: Form) -> nn.Module:
    """The float network of this form, with other weights."""
    network: nn.Module = build_network(form.network).eval()
    if form.merged:
        network = merge_branches(network, example_image(form.network))
    if form.fused:
        network = fuse_bn(network, example_image(form.network))
    return scale_silus(trace(network, example_image(form.network))) if form.scaled_silu else network


def _built_prepared(folder: Path, form: Form) -> fx.GraphModule:
    """The prepared network of this form in the modes of ``folder``, with other weights and ranges."""
    assert form.granularity is not None
    prepared = prepare(trace(_built(form), example_image(form.network)), form.granularity, form.weight_bits).eval()
    named = quantizers(prepared)
    for quantizer in named.values():
        quantizer.set_mode("freeze")
    description = _read_description(folder)
    for name, mode in description["modes"].items():
        named[name].set_mode(current_mode(mode))
    for name, bits in description.get("activation_bits", {}).items():
        named[name].widen_(bits)
    return prepared


def _load_tensors_(network: nn.Module, folder: Path, name: str, weight_bits: WeightBits = ALL_8BIT) -> None:
    path = folder / name
    try:
        if name.endswith(_PACKED):
            state = load_packed(path, weight_bits, network.state_dict())
        else:
            state = load_file(path) if name == _FLOAT_TENSORS else torch.load(path, weights_only=True)
        network.load_state_dict(state)
    except (OSError, RuntimeError, KeyError, ValueError, SafetensorError, UnpicklingError) as error:
        raise InputError(
            str(path), f"cannot be read ({error})", "the tensors of the network that is described"
        ) from error


def size_mb(network: nn.Module, folder: Path) -> float:
    """Bytes / 1e6 of the file that ships: the engine's, or the saved tensors (written in ``folder``, removed).

    Those of a network with 8-bit weights are its state dict, as in the study.
    """
    if isinstance(network, ExportedNetwork):
        return network.path.stat().st_size / 1e6
    weight_bits = network.meta.get("weight_bits", {}) if isinstance(network, fx.GraphModule) else {}
    path = _save_int8(network, folder, weight_bits, ".size")
    size = path.stat().st_size / 1e6
    path.unlink()
    return size


def _read_description(folder: Path) -> dict[str, Any]:
    try:
        description: Any = json.loads((folder / _DESCRIPTION).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(
            str(folder), f"no readable {_DESCRIPTION} ({error})", "a network folder of this tool"
        ) from error
    form = description.get("form") if isinstance(description, dict) else None
    if form not in FORMS:
        raise InputError(str(folder), "is unknown", value=f"form={form!r}", options=FORMS)
    checked: dict[str, Any] = description
    return checked
