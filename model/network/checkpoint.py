"""Checkpoints of the float network: our own safetensors files, and Lightning checkpoints of the study.

A safetensors file holds the state dict, and in its header the NetworkSpec and the metadata as JSON. Pickles
are read by torch's ``weights_only=True`` alone, so that no code in them ever runs.
"""

import dataclasses
import json
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from model.errors import InputError
from model.files import file_sha256, replacing
from model.images import LARGEST_SIZE
from model.network.spec import NetworkSpec

Metadata = dict[str, str | float | int]

FORMAT = "depth-network-1"
PICKLE_SUFFIXES = (".ckpt", ".pth", ".pt")
SUFFIXES = (".safetensors", *PICKLE_SUFFIXES)
LIGHTNING_PREFIX = "net."
SHOWN_NAMES = 4


def to_float16_(network: nn.Module) -> None:
    """Round all weights and statistics to values that 16 bits hold, in place; they stay float32.

    Raises OverflowError, naming the tensor, for a value above 65,504.
    """
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            rounded = tensor.half()
            if not torch.isfinite(rounded).all():
                raise OverflowError(f"{name} has values that 16 bits do not hold")
            tensor.copy_(rounded)


def save_checkpoint(
    network: nn.Module, spec: NetworkSpec, path: Path, metadata: Metadata, *, float16: bool = False
) -> None:
    """Write the network's state dict to a safetensors file, whole or not at all.

    ``float16``: in half the bytes, which loses nothing after ``to_float16_``.

    ``metadata`` (strings and numbers: command, data fingerprint, metrics ...) goes into its header, as does the
    spec.
    """
    header = {
        "format": FORMAT,
        "network": json.dumps(dataclasses.asdict(spec), sort_keys=True),
        "metadata": json.dumps(metadata, sort_keys=True),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    if float16:
        tensors = {name: one.half() if one.is_floating_point() else one for name, one in tensors.items()}
    with replacing(Path(path)) as aside:
        save_file(tensors, aside, metadata=header)


def load_checkpoint(path: Path, bare: NetworkSpec | None = None) -> tuple[nn.Module, NetworkSpec, Metadata]:
    """Rebuild the network of a checkpoint on the CPU, in eval mode: (network, spec, metadata).

    ``.safetensors`` is our own format, which names its network. ``.ckpt``, ``.pth`` and ``.pt`` hold a state dict of
    the network ``bare`` (None: the default one), under ``state_dict`` or bare, its names with the study's ``net.`` in
    front or without, and no metadata.
    Raises InputError for a file that is missing, broken, not a checkpoint, or of another network.
    """
    from model.network.build import build_network  # torchvision and timm, of no use to those who only hash

    path = Path(path)
    if not os.path.isfile(path):  # unlike Path.is_file, also where no file system takes so long a name
        raise InputError(str(path), "there is no such file", f"a checkpoint ({', '.join(SUFFIXES)})")
    if path.suffix not in SUFFIXES:
        raise InputError(str(path), f"the suffix {path.suffix!r} is unknown", f"one of {', '.join(SUFFIXES)}")
    metadata: Metadata
    if path.suffix in PICKLE_SUFFIXES:
        tensors, spec, metadata = _read_pickle(path), bare or NetworkSpec(), {}
    else:
        tensors, spec, metadata = _read_safetensors(path)
    try:
        network = build_network(spec)
    except Exception as error:  # what torch and timm raise on the spec of a strange header
        raise InputError(str(path), f"its network cannot be built ({error})", "a known encoder") from error
    _require_fit(path, network.state_dict(), tensors, spec)
    network.load_state_dict(tensors)
    return network.eval(), spec, metadata


def checkpoint_sha256(path: Path) -> str:
    """SHA-256 of the file's bytes, as hex; raises InputError where it cannot be read."""
    try:
        return file_sha256(path)
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror})", "a checkpoint file") from error


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], NetworkSpec, Metadata]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            tensors = {name: one.float() if one.dtype == torch.float16 else one for name, one in tensors.items()}
    except (SafetensorError, OSError, ValueError) as error:
        problem = f"cannot be read as safetensors ({error})"
        raise InputError(str(path), problem, "a whole safetensors file", "Was the copy cut short?") from error
    if header.get("format") != FORMAT:
        raise InputError(
            str(path),
            f"its header names the format {header.get('format')!r}",
            f"{FORMAT!r}, as this program writes it",
            "A bare state dict of the default network can be given as a .pth file.",
        )
    try:
        spec, metadata = NetworkSpec(**json.loads(header["network"])), json.loads(header["metadata"])
        if type(spec.input_size) is not int or spec.input_size > LARGEST_SIZE:
            raise ValueError(f"input_size {spec.input_size!r} is not a whole number up to {LARGEST_SIZE}")
        if not isinstance(metadata, dict):
            raise ValueError(f"metadata {metadata!r:.100} is not a mapping")
    except Exception as error:  # no JSON, nested without end, or a spec that NetworkSpec refuses
        problem = f"its header does not describe a network ({error})"
        raise InputError(str(path), problem, "'network' and 'metadata' as this program writes them") from error
    return tensors, spec, metadata


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        _require_unpacked(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler raises anything on broken bytes
        raise _unreadable(path, error) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    expected = "a state dict, or one under 'state_dict'"
    if not isinstance(content, Mapping) or not content:
        raise InputError(str(path), f"it holds a {type(content).__name__} without weights", expected)
    others = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise InputError(str(path), f"its entries {_some(others)} are not tensors", expected)
    tensors = {str(name): tensor for name, tensor in content.items()}
    if not any(name.startswith(LIGHTNING_PREFIX) for name in tensors):
        return tensors
    # A Lightning module may keep tensors beside its network, such as those of a loss or a metric.
    return {
        name.removeprefix(LIGHTNING_PREFIX): tensor
        for name, tensor in tensors.items()
        if name.startswith(LIGHTNING_PREFIX)
    }


def _require_unpacked(path: Path) -> None:
    """torch.save does not compress, but torch.load unpacks what is: a small file could fill the memory."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > 2 * path.stat().st_size:
            raise RuntimeError(f"it is compressed and would unpack to {size / 1e6:.0f} MB")


def _unreadable(path: Path, error: Exception) -> InputError:
    refused = re.search(r"GLOBAL (\S+)( whose module \S+ is blocked)?", str(error))
    if refused is None and "TorchScript" not in str(error):
        reason = str(error).splitlines()[0].split(". ")[0] if isinstance(error, RuntimeError) else "no archive of torch"
        problem = f"cannot be read as a checkpoint ({reason})"
        return InputError(str(path), problem, "a file of torch.save", "Was the copy cut short?")
    problem = f"it needs {refused[1] if refused else 'TorchScript'} to be loaded, which could run any code"
    if refused and refused[2]:
        hint = "It was not run. No checkpoint needs it: do not load this file elsewhere either."
    else:
        hint = (
            "It was not run. Lightning keeps hyper-parameters like that. If you trust the file, write its weights "
            "alone, where its own code is installed: "
            "`torch.save({'state_dict': torch.load('old.ckpt', weights_only=False)['state_dict']}, 'new.ckpt')`."
        )
    return InputError(str(path), problem, "tensors and plain values alone", hint)


def _require_fit(path: Path, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], spec: NetworkSpec) -> None:
    shared = [name for name in wanted if name in given]
    alike = [name for name in shared if _kind(given[name]) == _kind(wanted[name])]
    fitting = [name for name in alike if given[name].shape == wanted[name].shape]
    shapes = {name: f"{name} {list(given[name].shape)} for {list(wanted[name].shape)}" for name in shared}
    findings = (
        ("missing", [name for name in wanted if name not in given]),
        ("unexpected", [name for name in given if name not in wanted]),
        ("of another shape", [shapes[name] for name in shared if given[name].shape != wanted[name].shape]),
        ("of another kind", [f"{name} {_kind(given[name])}" for name in shared if name not in alike]),
        # as the network will hold them: 1e300 is finite in float64 alone
        ("not finite", [name for name in fitting if not bool(given[name].to(wanted[name].dtype).isfinite().all())]),
        (
            "negative",
            [name for name in fitting if name.endswith("running_var") and bool((given[name].float() < 0).any())],
        ),
    )
    problems = [f"{len(names)} {what}: {_some(names)}" for what, names in findings if names]
    if problems:
        raise InputError(
            str(path),
            f"its tensors do not fit the network {spec.encoder!r} ({'; '.join(problems)})",
            f"the {len(wanted)} tensors of that network, all finite",
            "Give a checkpoint of this network, or leave --checkpoint out to train one.",
        )


def _kind(tensor: Tensor) -> str:
    """What its numbers are, whatever their precision; plain tensors have the kinds float and int."""
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        return f"{tensor.layout} {tensor.dtype} on {tensor.device}".replace("torch.", "")
    plain = "float" if tensor.is_floating_point() else "int"
    return str(tensor.dtype).removeprefix("torch.") if tensor.is_complex() or tensor.dtype == torch.bool else plain


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN_NAMES]) + (", ..." if len(names) > SHOWN_NAMES else "")
