"""Checkpoints of the float network: our safetensors files, and Lightning checkpoints of the study to start from.

A safetensors file holds the state dict, and in its header the NetworkSpec and the metadata as JSON. Pickles are read
with ``weights_only=True`` alone, so that no code in them ever runs.
"""

import dataclasses
import hashlib
import json
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from model.errors import InputError
from model.network import DepthNetwork, NetworkSpec, build_network

Metadata = dict[str, str | float | int]

FORMAT = "depth-network-1"
SAFETENSORS_SUFFIXES = (".safetensors",)
PICKLE_SUFFIXES = (".ckpt", ".pth", ".pt")
LIGHTNING_PREFIX = "net."
_SHOWN = 4
_CONVERT = (
    "Convert it where its own code is installed: "
    "`torch.save({'state_dict': torch.load(FILE, weights_only=False)['state_dict']}, 'plain.ckpt')`."
)


def save_checkpoint(network: DepthNetwork, spec: NetworkSpec, path: Path, metadata: Metadata) -> None:
    """Write the network's state dict to a safetensors file, whole or not at all.

    ``metadata`` (strings and numbers: command, data fingerprint, metrics ...) is kept in the header beside the spec.
    """
    header = {
        "format": FORMAT,
        "network": json.dumps(dataclasses.asdict(spec), sort_keys=True),
        "metadata": json.dumps(metadata, sort_keys=True),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, aside, metadata=header)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> tuple[DepthNetwork, NetworkSpec, Metadata]:
    """Rebuild the network of a checkpoint on the CPU, in eval mode: (network, spec, metadata).

    ``.safetensors`` is our own format. ``.ckpt``, ``.pth`` and ``.pt`` hold a state dict of the default network, under
    ``state_dict`` or bare, with the study's ``net.`` before its names or without.
    Raises InputError for a file that is missing, broken, not a checkpoint, or of another network.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(str(path), "there is no such checkpoint file", "a .safetensors, .ckpt or .pth file")
    if path.suffix in SAFETENSORS_SUFFIXES:
        tensors, spec, metadata = _read_safetensors(path)
    elif path.suffix in PICKLE_SUFFIXES:
        tensors, spec, metadata = _read_pickle(path), NetworkSpec(), {}
    else:
        expected = ", ".join(SAFETENSORS_SUFFIXES + PICKLE_SUFFIXES)
        raise InputError(str(path), f"the suffix {path.suffix!r} is unknown", f"one of {expected}")
    network = build_network(spec)
    _check_tensors(path, network.state_dict(), tensors, spec)
    network.load_state_dict(tensors)
    return network.eval(), spec, metadata


def checkpoint_sha256(path: Path) -> str:
    """SHA-256 of the file's bytes, as hex; raises InputError where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror})", "a readable checkpoint file") from error


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], NetworkSpec, Metadata]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            str(path), f"cannot be read as safetensors ({error})", "a whole safetensors file", "Is it a broken copy?"
        ) from error
    if header.get("format") != FORMAT:
        raise InputError(
            str(path),
            f"its header names the format {header.get('format')!r}",
            f"{FORMAT!r}, as save_checkpoint writes it",
            "A bare state dict can be given as a .pth file.",
        )
    try:
        spec = NetworkSpec(**json.loads(header["network"]))
        metadata = json.loads(header["metadata"])
    except (KeyError, TypeError, json.JSONDecodeError, InputError) as error:
        raise InputError(str(path), f"its header does not describe a network ({error})", "a NetworkSpec") from error
    return tensors, spec, metadata


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = _blocked_global(str(error))
        if reason is None:
            raise _broken(path, error) from error
        raise InputError(
            str(path), f"it needs {reason} to be loaded, which is refused because it could run any code",
            "tensors and plain values only", _CONVERT,
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _broken(path, error) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise InputError(str(path), f"it holds a {type(content).__name__}", "a state dict, or one under 'state_dict'")
    strangers = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if strangers:
        raise InputError(str(path), f"{_some(strangers)} are no tensors", "a state dict, or one under 'state_dict'")
    names = [str(name) for name in content]
    prefix = LIGHTNING_PREFIX if any(name.startswith(LIGHTNING_PREFIX) for name in names) else ""
    # A Lightning module may keep tensors beside its network, such as those of a loss or a metric.
    return {
        str(name).removeprefix(prefix): tensor for name, tensor in content.items() if str(name).startswith(prefix)
    }


def _blocked_global(message: str) -> str | None:
    """The class or function that torch's restricted unpickler refused, or None where the file is simply broken."""
    for marker in ("Unsupported global: GLOBAL ", "Trying to load unsupported GLOBAL ", "Trying to call reduce for unrecognized function "):
        if marker in message:
            return message.split(marker, 1)[1].split()[0].strip("`'\"")
    return None


def _broken(path: Path, error: Exception) -> InputError:
    first_line = (str(error) or type(error).__name__).splitlines()[0]
    return InputError(
        str(path), f"cannot be read as a checkpoint ({first_line})", "a file written by torch.save", "Is it a broken copy?"
    )


def _check_tensors(
    path: Path, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], spec: NetworkSpec
) -> None:
    missing = [name for name in wanted if name not in given]
    unexpected = [name for name in given if name not in wanted]
    misshapen = [
        f"{name} {list(given[name].shape)} instead of {list(wanted[name].shape)}"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    problems = [
        f"{len(names)} tensors {what}: {_some(names)}"
        for what, names in (("are missing", missing), ("are unexpected", unexpected), ("have a wrong shape", misshapen))
        if names
    ]
    if problems:
        raise InputError(
            str(path),
            f"it does not fit the network {spec.encoder!r} ({'; '.join(problems)})",
            f"the {len(wanted)} tensors of that network",
            "Give a checkpoint of this network, or train one by leaving --checkpoint out.",
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
