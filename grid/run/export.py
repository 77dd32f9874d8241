"""A cell's network as a file for a phone: the file, a card that says what it is, and a script that runs it."""

import json
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from grid.paths import RUN_FILE_SCRIPT
from grid.planning.plan import Cell
from grid.run.files import RunFiles, pack_of
from grid.storage.result_store import StageStore
from model.errors import InputError
from model.files import file_sha256
from model.images import IMAGENET_MEAN, IMAGENET_STD, MAX_DEPTH_M
from model.network.build import example_image
from model.progress import Progress, ignore_progress
from model.tasks.depth import depth_metrics
from model.training import predict
from quant.artifact import load_network, read_form
from quant.engines.catalog import PACKAGES, is_exported, missing
from quant.engines.exported import ExportedNetwork, export, file_name
from quant.fake_quantize import FakeQuantize
from quant.prepare import quantizers

CARD, SCRIPT = "card.json", "run.py"


def export_cell(
    files: RunFiles,
    store: StageStore,
    name: str,
    engine: str,
    out: Path,
    progress: Progress = ignore_progress,
) -> Path:
    """Write the network of the cell ``name`` of a run for ``engine`` into ``out``; returns the network's file.

    The recipe's integers and scales go into the file as they are. Its figures on the card are measured with that file
    on the run's test images. Raises InputError where the cell or the engine is not there.
    """
    reason = missing(engine)
    if not is_exported(engine) or reason:
        expected = f"one of {', '.join(PACKAGES)}"
        raise InputError("--engine", reason or f"{engine!r} has no file of its own", expected)
    cell = _finished_cell(files, store, name)
    source = _source(cell, store)
    form = read_form(source)
    network = load_network(source)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}", f"cannot be made ({error.strerror})", "a folder") from error
    file = out / file_name(engine)
    stored = store.path(cell.nodes["convert"]) / file.name if "convert" in cell.nodes else None
    if stored is not None and stored.is_file():
        shutil.copy(stored, file)
    else:
        export(network, engine, example_image(form.network), file)
    card = {
        "cell": cell.name,
        "run": files.name,
        "engine": {"name": engine, **{name: version(name) for name in PACKAGES[engine]}, "torch": torch.__version__},
        "file": {
            "name": file.name,
            "sha256": file_sha256(file),
            "bytes": file.stat().st_size,
            "holds": _sizes(network),
        },
        "scheme": _scheme(network, form.granularity),
        "input": _input(network, form.network.input_size),
        "output": _output(network, form.network.output_size),
        "metrics": _metrics(store.root, files.context, engine, file, progress),
        "recipe": cell.relevant,
    }
    (out / CARD).write_text(json.dumps(card, indent=1) + "\n")
    shutil.copy(RUN_FILE_SCRIPT, out / SCRIPT)
    return file


def _finished_cell(files: RunFiles, store: StageStore, name: str) -> Cell:
    for cell in files.plan.cells:
        if cell.name == name:
            absent = [stage for stage, node in cell.nodes.items() if not store.verify(node)]
            if absent:
                raise InputError(
                    "--export", f"{name} lacks its stage {absent[0]}", "a finished cell", "Resume the run."
                )
            return cell
    known = [cell.name for cell in files.plan.cells]
    raise InputError("--export", f"{files.name} has no cell {name!r}", ", ".join(known))


def _source(cell: Cell, store: StageStore) -> Path:
    """The folder of what is exported: the prepared network that a cell converts, or a float cell's network."""
    if "convert" in cell.nodes:
        return store.path(dict(store.record(cell.nodes["convert"])["inputs"])["network"])
    root = [node for stage, node in cell.nodes.items() if stage in ("load", "train", "fuse")]
    return store.path(root[-1])


def _scheme(network: nn.Module, granularity: str | None) -> dict[str, str]:
    if granularity is None:
        return {"weights": "float32", "activations": "float32"}
    scheme = {"weights": f"int8 symmetric, {granularity}", "activations": "8 bits affine, per tensor"}
    off = [name for name, quantizer in quantizers(network).items() if quantizer.mode == "off"]
    return scheme | ({"in float": ", ".join(off)} if off else {})


def _input(network: nn.Module, size: int) -> dict[str, Any]:
    preprocessing = (
        "RGB scaled to 0..1, minus mean, divided by std, a channel each; the whole view shrunk to the square"
    )
    shape = {"name": "image", "shape": [1, 3, size, size], "dtype": "float32", "preprocessing": preprocessing}
    return shape | {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "levels": _levels(network, first=True)}


def _output(network: nn.Module, size: int) -> dict[str, Any]:
    shape = {"name": "depth", "shape": [1, 1, size, size], "dtype": "float32", "metres": f"times {MAX_DEPTH_M:g}"}
    return shape | {"levels": _levels(network, first=False)}


def _levels(network: nn.Module, first: bool) -> dict[str, float] | None:
    """Scale and zero point (for levels 0 to 255) of the input's or the output's quantizer."""
    if not isinstance(network, fx.GraphModule):
        return None
    nodes = [node for node in network.graph.nodes if node.op == "call_module"]
    found = [network.get_submodule(str(node.target)) for node in nodes]
    activations = [module for module in found if isinstance(module, FakeQuantize) and module.mode != "off"]
    if not activations:
        return None
    quantizer = activations[0 if first else -1]
    return {"scale": float(quantizer.scale[0]), "zero_point": int(quantizer.zero_point[0])}


def _sizes(network: nn.Module) -> dict[str, int]:
    """Bytes by what takes the space, before the format's own."""
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    weights = sum(conv.weight.numel() for conv in convolutions)
    biases = sum(conv.out_channels for conv in convolutions)
    int8 = bool(quantizers(network))
    scales = sum(q.scale.numel() for q in quantizers(network).values())
    return {"weights": weights * (1 if int8 else 4), "biases": 4 * biases, "scales": 4 * scales}


def _metrics(
    storage: Path, context: Mapping[str, Any], engine: str, file: Path, progress: Progress
) -> dict[str, Any] | None:
    pack = pack_of(storage, context)
    if pack is None:
        return None
    network, images = ExportedNetwork(engine, file), pack.images("test")
    with torch.inference_mode():
        prediction = predict(network, images, device=torch.device("cpu"), progress=progress)
    return {"test_images": len(images), "data": context["origin"], **depth_metrics(prediction, pack.targets("test"))}
