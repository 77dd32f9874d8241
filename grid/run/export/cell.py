"""A cell's network as files for a phone: a file an engine, a card that says what they are, a script that runs them."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from grid.paths import RUN_FILE_SCRIPT
from grid.planning.plan import Cell
from grid.run.export.agreement import agreements, write_csv
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
from model.tasks.nested import Nested, leaves
from model.tasks.networks import register_task_network
from model.tasks.task import Task, metric_means
from model.training import predict
from quant.artifact import Form, load_network, read_form
from quant.engines.card import card_input, card_output, output_name, output_scales
from quant.engines.catalog import PACKAGES, is_exported, missing, runtime
from quant.engines.exported import (
    ExportedNetwork,
    ExportError,
    channels_last,
    export,
    file_name,
    int8_weights_sha256,
)
from quant.prepare import quantizers

CARD, SCRIPT, AGREEMENT = "card.json", "run.py", "agreement.csv"
ALL = "all"
"""In an engine's place: every engine that has files of its own."""
SIMULATION, FLOAT = "simulation", "PyTorch"
"""What the engines are compared with: the recipe's simulation, or of a float cell the network itself."""
_WITH_WEIGHTS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)

Told = Callable[[str], Progress]
"""Hears what is done next, and gives what hears how far that is."""


@dataclass(frozen=True)
class Source:
    """What is exported: a cell of a run with its network, and what its files are measured with."""

    cell: Cell
    folder: Path
    form: Form
    network: nn.Module
    task: Task
    pack: Pack | None

    def written(self, store: StageStore, engine: str) -> Path | None:
        """The file that the cell itself has of this engine, if any."""
        file = store.path(self.cell.nodes["convert"]) / file_name(engine) if "convert" in self.cell.nodes else None
        return file if file is not None and file.is_file() else None


def export_cell(
    files: RunFiles,
    store: StageStore,
    name: str,
    engine: str,
    out: Path,
    task_named: str = DEPTH,
    told: Told = lambda step: ignore_progress,
) -> dict[str, Any]:
    """Write the network of the cell ``name`` of a run for ``engine``, or for all, into ``out``; returns its card.

    The recipe's integers and scales go into each file as they are. The figures on the card are measured with the files
    on the run's test images. Of all engines those are left out, with the reason on the card, that are not installed or
    cannot express the network. ``task_named`` is what the command line names: a task of the user's own is its file.
    Raises InputError where the cell, the engine or that file is not there, or no file can be written.
    """
    engines = _installed(engine)
    cell = _finished_cell(files, store, name)
    task = _task(files, task_named)
    folder = _source(cell, store)
    pack = pack_of(store.root, files.context)
    source = Source(cell, folder, read_form(folder), load_network(folder), task, pack)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}", f"cannot be made ({error.strerror})", "a folder") from error
    left_out = {one: reason for one, reason in engines.items() if reason is not None}
    written: dict[str, dict[str, Any]] = {}
    for one in (one for one in engines if one not in left_out):
        told(f"writing for {one}")
        try:
            written[one] = _written(source, store, one, out)
        except Exception as error:  # an exporter may fail in any way; the other engines have their files
            if engine != ALL:
                raise
            (out / file_name(one)).unlink(missing_ok=True)
            left_out[one] = (
                f"it does not take the network: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
            )
    if not written:
        raise InputError("--engine all", "no engine takes the network", "; ".join(left_out.values()))
    integers = {file.pop("int8_weights") for file in written.values()}
    if len(integers) > 1:
        raise ExportError(f"the files of {', '.join(written)} have different int8 weights")
    measured = _measured(source, written, out, told)
    dtype = pack.layout["image"][0] if pack else "uint8" if files.task.name in BUILT_IN else None
    card = {
        "cell": cell.name,
        "run": files.name,
        **({} if task is DEPTH_TASK else {"task": task.name}),
        "files": list(written.values()),
        **({"left_out": left_out} if left_out else {}),
        "holds": _sizes(source.network),
        "int8_weights_sha256": integers.pop(),
        "scheme": _scheme(source.network, source.form.granularity),
        "input": card_input(source.network, source.form.network, dtype, str(files.context["origin"])),
        "output": card_output(source.network, source.form.network, files.task),
        **(measured and {"data": files.context["origin"], **measured}),
        "recipe": cell.relevant,
    }
    (out / CARD).write_text(json.dumps(card, indent=1) + "\n")
    shutil.copy(RUN_FILE_SCRIPT, out / SCRIPT)
    return card


def _installed(engine: str) -> dict[str, str | None]:
    """The engines that are meant, each with what it lacks; raises InputError where none of them is installed."""
    if engine != ALL and not is_exported(engine):
        raise InputError("--engine", f"{engine!r} has no file of its own", f"one of {', '.join((*PACKAGES, ALL))}")
    engines = {one: missing(one) for one in (PACKAGES if engine == ALL else (engine,))}
    if all(engines.values()):
        raise InputError("--engine", "; ".join(map(str, engines.values())), "an engine whose packages are installed")
    return engines


def _written(source: Source, store: StageStore, engine: str, out: Path) -> dict[str, Any]:
    """Write one file; what the card says of it, and the hash of its int8 weights."""
    file, example = out / file_name(engine), example_image(source.form.network)
    if stored := source.written(store, engine):
        shutil.copy(stored, file)
    else:
        export(source.network, engine, example, file, output_name(source.form.network.task))
    versions = {name: version(name) for name in PACKAGES[engine]}
    return {
        "engine": {"name": engine, "package": runtime(engine)[0], **versions, "torch": torch.__version__},
        "name": file.name,
        "sha256": file_sha256(file),
        "bytes": file.stat().st_size,
        "layout": "NHWC" if channels_last(engine) else "NCHW",
        "int8_weights": int8_weights_sha256(source.network, engine, file),
    }


def _measured(source: Source, written: dict[str, dict[str, Any]], out: Path, told: Told) -> dict[str, Any]:
    """Metrics into what the card says of each file, and how far the files agree; nothing where the data are gone."""
    if source.pack is None:
        return {}
    images, targets = source.pack.images("test"), source.pack.targets("test")
    reference = SIMULATION if quantizers(source.network) else FLOAT
    networks = {reference: source.network.eval()}
    networks |= {engine: ExportedNetwork(engine, out / file["name"]) for engine, file in written.items()}
    outputs: dict[str, Nested] = {}
    metrics: dict[str, dict[str, float]] = {}
    for name, network in networks.items():
        with torch.inference_mode():
            outputs[name] = predict(
                network, images, device=torch.device("cpu"), progress=told(f"{name}, test pictures")
            )
        metrics[name] = metric_means(source.task, outputs[name], targets)
    for engine, file in written.items():
        file["metrics"] = metrics[engine]
    found = agreements(outputs, output_scales(source.network, len(leaves(outputs[reference]))))
    headline = source.task.headline
    write_csv(out / AGREEMENT, found, headline, {name: figures[headline] for name, figures in metrics.items()})
    return {
        "test_images": len(images),
        reference: {"metrics": metrics[reference]},
        "agreement": [asdict(pair) for pair in found],
    }


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
