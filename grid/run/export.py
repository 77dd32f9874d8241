"""A cell's network as a file for a phone: the file, a card that says what it is, and a script that runs it."""

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from grid.paths import RUN_FILE_SCRIPT
from grid.planning.plan import Cell
from grid.run.files import RunFiles, pack_of
from grid.storage.result_store import StageStore
from model.data.pack import Pack
from model.errors import InputError
from model.files import file_sha256
from model.network.build import example_image
from model.network.spec import DEPTH
from model.network.user_network import OWN
from model.progress import Progress, ignore_progress
from model.tasks.depth import DEPTH as DEPTH_TASK
from model.tasks.load import load_task
from model.tasks.names import BUILT_IN
from model.tasks.networks import register_task_network
from model.tasks.task import Task, metric_means
from model.training import predict
from quant.artifact import load_network, read_form
from quant.engines.card import card_input, card_output, output_name, placed
from quant.engines.catalog import PACKAGES, is_exported, missing
from quant.engines.exported import ExportedNetwork, channels_last, export, file_name
from quant.prepare import quantizers

CARD, SCRIPT = "card.json", "run.py"
_WITH_WEIGHTS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def export_cell(
    files: RunFiles,
    store: StageStore,
    name: str,
    engine: str,
    out: Path,
    task_named: str = DEPTH,
    progress: Progress = ignore_progress,
) -> Path:
    """Write the network of the cell ``name`` of a run for ``engine`` into ``out``; returns the network's file.

    The recipe's integers and scales go into the file as they are. Its figures on the card are measured with that file
    on the run's test images. ``task_named`` is what the command line names: a task of the user's own is its file.
    Raises InputError where the cell, the engine or that file is not there.
    """
    reason = missing(engine)
    if not is_exported(engine) or reason:
        expected = f"one of {', '.join(PACKAGES)}"
        raise InputError("--engine", reason or f"{engine!r} has no file of its own", expected)
    cell = _finished_cell(files, store, name)
    task = _task(files, task_named)
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
        export(network, engine, example_image(form.network), file, output_name(form.network.task))
    pack = pack_of(store.root, files.context)
    dtype = pack.layout["image"][0] if pack else "uint8" if files.task.name in BUILT_IN else None
    card = {
        "cell": cell.name,
        "run": files.name,
        **({} if task is DEPTH_TASK else {"task": task.name}),
        "engine": {"name": engine, **{name: version(name) for name in PACKAGES[engine]}, "torch": torch.__version__},
        "file": {
            "name": file.name,
            "sha256": file_sha256(file),
            "bytes": file.stat().st_size,
            "holds": _sizes(network),
        },
        "scheme": _scheme(network, form.granularity),
        "input": placed(card_input(network, form.network, dtype, str(files.context["origin"])), channels_last(engine)),
        "output": placed(card_output(network, form.network, files.task), channels_last(engine)),
        "metrics": pack and _metrics(task, pack, files.context["origin"], ExportedNetwork(engine, file), progress),
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


def _task(files: RunFiles, named: str) -> Task:
    """The task of a run, whose own network is made known; a file runs only where the command line names it."""
    facts = files.task
    if not facts.name.startswith(OWN):
        if named not in (DEPTH, facts.name):
            raise InputError("--task", f"is not the task of {files.name}", facts.name, value=repr(named))
        if facts.name != DEPTH:
            register_task_network(facts.name)
        return load_task(facts, None)
    if named == DEPTH:
        problem = f"{files.name} has the task {facts.name}, and code runs only from a file that you name"
        raise InputError("--export", problem, f"--task {facts.name.removeprefix(OWN)}.py")
    task = load_task(facts, Path(named))
    register_task_network(named)
    return task


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


def _sizes(network: nn.Module) -> dict[str, int]:
    """Bytes by what takes the space, before the format's own."""
    layers = [module for module in network.modules() if isinstance(module, _WITH_WEIGHTS)]
    weights = sum(layer.weight.numel() for layer in layers)
    biases = sum(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels for layer in layers)
    int8 = bool(quantizers(network))
    scales = sum(q.scale.numel() for q in quantizers(network).values())
    return {"weights": weights * (1 if int8 else 4), "biases": 4 * biases, "scales": 4 * scales}


def _metrics(task: Task, pack: Pack, origin: Any, network: ExportedNetwork, progress: Progress) -> dict[str, Any]:
    images = pack.images("test")
    with torch.inference_mode():
        outputs = predict(network, images, device=torch.device("cpu"), progress=progress)
    return {"test_images": len(images), "data": origin, **metric_means(task, outputs, pack.targets("test"))}
