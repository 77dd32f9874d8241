"""Networks as files of another runtime: written from the recipe as it stands, and run behind ``forward``."""

import hashlib
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, fx, nn

from model.tasks.nested import Nested, joined
from quant.engines import litert, onnxruntime, xnnpack
from quant.engines.catalog import missing
from quant.engines.decomposed import QUANTIZE, Int8Conv, decompose
from quant.engines.outputs import flatten_outputs_
from quant.graph import module_of
from quant.prepare import quantizers
from quant.tracing.trace import fuse_bn

_ENGINES: dict[str, ModuleType] = {"onnxruntime": onnxruntime, "xnnpack": xnnpack, "litert": litert}


class ExportError(RuntimeError):
    """An engine's package is missing, or its file lacks constants of the recipe."""


class ExportedNetwork(nn.Module):
    """A file on its engine: N x C x H x W as the network takes them to what it gives, one image after the other.

    ``path`` is the file. Its bytes stand for the network; there are no parameters.
    """

    def __init__(self, engine: str, path: Path) -> None:
        super().__init__()
        reason = missing(engine, only_to_run=True)
        if reason:
            raise ExportError(reason)
        self.engine, self.path = engine, Path(path)
        self.run = _ENGINES[engine].Runner(self.path)
        self.eval()

    def forward(self, images: Tensor) -> Nested:
        """The outputs for the images: a tensor, or a tuple or dict of tensors, as of the network in the file."""
        return joined([self.run(image) for image in torch.split(images, 1)])


def file_name(engine: str) -> str:
    """The name of the engine's file in a network's folder."""
    return str(_ENGINES[engine].FILE)


def channels_last(engine: str) -> bool:
    """Whether images have their channels last at the inputs and outputs of the engine's files."""
    return bool(_ENGINES[engine].CHANNELS_LAST)


@torch.no_grad()
def export(network: nn.Module, engine: str, example: Tensor, path: Path, output: str = "output") -> str:
    """Write a prepared network with frozen ranges, or a float one, for ``engine``; returns the hash of its arithmetic.

    ``example`` is an input, 1xCxHxW. Scales, zero points and int8 weights are those of the prepared network. Where the
    engine names outputs, ``output`` is the name of a lone one. Raises ExportError where its packages are missing.
    """
    reason = missing(engine)
    if reason:
        raise ExportError(reason)
    plain = plain_form(network, engine, example)
    digest = f"{engine} {arithmetic_hash(plain)}"
    outputs = flatten_outputs_(plain, example, output)
    _ENGINES[engine].write(plain, example, path, outputs)
    if _is_prepared(network):
        require_constants(engine, path, plain)
    return hashlib.sha256(digest.encode()).hexdigest()


def plain_form(network: nn.Module, engine: str, example: Tensor | None = None) -> fx.GraphModule:
    """What the file of ``engine`` is written from: decomposed where it is prepared, else with BatchNorm folded."""
    if _is_prepared(network):
        return decompose(network, _ENGINES[engine].SIGNED)  # type: ignore[arg-type]
    return fuse_bn(network, example).eval()


def _is_prepared(network: nn.Module) -> bool:
    return isinstance(network, fx.GraphModule) and bool(quantizers(network))


def int8_weights_sha256(network: nn.Module, engine: str, path: Path) -> str | None:
    """SHA-256 of the int8 weights by layer that an engine's file of a prepared network holds; None of a float one.

    It is the same in the files of all engines. Raises ExportError where the file lacks one of the recipe's constants.
    """
    if not _is_prepared(network):
        return None
    plain, digest = plain_form(network, engine), hashlib.sha256()
    require_constants(engine, path, plain)
    for name, weight in sorted(_int8_weights(plain).items()):
        digest.update(f"{name} {tuple(weight.shape)}\n".encode() + weight.numpy().tobytes())
    return digest.hexdigest()


def _int8_weights(decomposed: fx.GraphModule) -> dict[str, Tensor]:
    return {name: module.weight for name, module in decomposed.named_modules() if isinstance(module, Int8Conv)}


def require_constants(engine: str, path: Path, decomposed: fx.GraphModule) -> None:
    """Raise ExportError unless the file holds every int8 weight and every scale of the recipe, bit for bit."""
    weights = _int8_weights(decomposed)
    scales = {float(node.args[1]) for node in decomposed.graph.nodes if node.target is QUANTIZE}
    contents = _ENGINES[engine].Contents(path)
    lost = [name for name, weight in weights.items() if not contents.has_weight(weight)]
    lost += [f"scale {scale}" for scale in scales if not contents.has_scale(scale)]
    if lost:
        raise ExportError(f"{path.name} does not hold what the recipe found: {', '.join(lost[:4])} of {len(weights)}")


def arithmetic_hash(network: fx.GraphModule) -> str:
    """SHA-256 over operators, constants and their order; names do not count."""
    digest = hashlib.sha256()
    position = {node: index for index, node in enumerate(network.graph.nodes)}
    for node in network.graph.nodes:
        module = module_of(network, node)
        own = "" if node.op == "placeholder" else getattr(node.target, "__name__", str(node.target))
        target = own if module is None else repr(module)  # never an address, which another process has not
        arguments = fx.map_arg((node.args, dict(node.kwargs)), lambda arg: f"%{position[arg]}")
        digest.update(f"{node.op} {target} {arguments}\n".encode())
        for value in () if module is None else module.state_dict().values():
            digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()
