"""The stage that times a network's file on a device, and compares its outputs there with the host's."""

import json
import math
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from grid.devices.address import PROCESS, Device
from grid.devices.board import Board, File
from grid.devices.command_line import board_of
from grid.devices.facts import Facts
from grid.devices.lock import locked_device
from grid.devices.measure import Timing, measure
from grid.planning.output_files import LATENCIES
from grid.stages.latency import Latency, summarize
from grid.stages.shared_measurement import graph_hash_of, shared_measurement
from grid.stages.work import Outcome, StageError, Work
from model.errors import InputError
from model.images import to_network
from model.tasks.nested import Nested, each, leaves
from model.tasks.task import metric_means
from quant.artifact import load_network, load_prepared, read_form
from quant.engines.card import output_scales
from quant.engines.executorch_runner.build import libraries
from quant.engines.exported import ExportedNetwork, file_name
from quant.timing_class import timing_class

COMPARED = 8
"""Test images whose outputs are compared, in levels."""
EXECUTORCH = "xnnpack"
_AT_A_TIME = 16
_LEVELS = 255


def profile_on_device(work: Work) -> Outcome:
    """Latency of the file on the device, once for all cells that have the same one, and how its outputs differ."""
    settings = json.dumps(dict(work.node.settings), sort_keys=True)
    floats = [work.inputs[role].name for role in ("float", "reference")]
    found = shared_measurement(work, [str(graph_hash_of(work)), settings, *floats], lambda out: _measure(work, out))
    shutil.copy(work.store.path(found) / LATENCIES, work.out)
    record = work.store.record(found)
    return Outcome(record["metrics"], record["asserted"])


def _measure(work: Work, out: Path) -> Outcome:
    device, spec = work.context.device_called(str(work.node.settings["device"])), work.group("latency")
    board = board_of(device, work.progress)
    example = _saved(work, [0])
    inputs, here = _on_host(work)
    shapes = [one.shape[1:] for one in here]
    with locked_device(device, work.progress):
        runtimes, facts = board.runtimes(), board.probe()
        roles = {role: _file(work.inputs[role]) for role in ("network", "float", "reference")}
        files = {role: _with_libraries(file, device, facts) for role, file in roles.items()}
        _require_runtimes(device, runtimes, files.values())
        others = dict.fromkeys(file for file in files.values() if file != files["reference"])
        timed = [*others, files["reference"]]  # the last one is the canary
        places = {role: timed.index(file) for role, file in files.items()}
        timing = measure(board, timed, example, spec)
        there, memory_mb = board.outputs(files["network"], inputs, timing.cores, spec.threads, shapes)
        accuracy = {}
        if work.node.settings["device_accuracy"]:
            accuracy = _accuracy(work, board, files["network"], timing.cores, shapes)
    latency, own = (_beside(timing, places["network"], places[role]) for role in ("reference", "float"))
    np.save(out / LATENCIES, latency.times)
    network = load_network(work.inputs["network"])
    known = work.record("network")["metrics"].get("timing_class")
    asserted = {
        "cpu_model": f"{device.label}: {timing.facts.processor(timing.cores)}",
        "threads": spec.threads,
        "timing_class": timing_class(network, (1, *work.pack.images("test", [0]).shape[1:]), "eager", known),
        "session": work.node.id,
        "reference": f"{files['reference'].engine} float",
        "throttled": timing.throttled,
        "cores": list(timing.cores),
        "facts": timing.facts.told(),
        "runtimes": runtimes,
        "temperatures_c": [None if math.isnan(one) else one for one in timing.temperatures_c],
        "sent_bytes": board.sent,
    }
    metrics = latency.figures | {
        "ready_s": list(timing.ready_s),
        "canary_ms": [1e3 * seconds for seconds in timing.canary],
        "repeated_loads": timing.repeated,
        "engine_ratio": own.ratio,
        "engine_ratio_low": own.ratio_low,
        "engine_ratio_high": own.ratio_high,
    }
    compared = _compared(work, device.name, here, there)
    return Outcome({**metrics, **compared, "device_memory_mb": memory_mb, **accuracy}, asserted)


def _beside(timing: Timing, candidate: int, reference: int) -> Latency:
    """The latency of one of the files that were timed, beside another of them, by their places."""
    return summarize([times[:, [candidate, reference]] for times in timing.loads])


def _on_host(work: Work) -> tuple[Path, list[np.ndarray]]:
    """Some test images in a file, and what the network gives for them on this machine, in the order of its file."""
    inputs, file = _saved(work, range(min(COMPARED, work.pack.size("test")))), _file(work.inputs["network"])
    if file.engine == EXECUTORCH:
        network = ExportedNetwork(file.engine, file.path)
        with torch.inference_mode():
            return inputs, [one.numpy() for one in leaves(network(torch.from_numpy(np.load(inputs)))).values()]
    with tempfile.TemporaryDirectory(dir=work.scratch) as folder:
        host = Board(Device("host", PROCESS, "", python=sys.executable, folder=folder))
        return inputs, host.outputs(file, inputs, (), work.group("latency").threads)[0]


def _compared(work: Work, name: str, here: Sequence[np.ndarray], there: Sequence[np.ndarray]) -> dict[str, float]:
    """How the device's outputs differ from the host's, in levels."""
    if [one.shape for one in there] != [one.shape for one in here]:
        raise StageError(f"{name}: outputs of other shapes than here")
    if not all(np.isfinite(one).all() for one in there):
        raise StageError(f"{name}: its outputs are not finite numbers")
    prepared = load_prepared(work.inputs["simulated"]) if "simulated" in work.inputs else None
    scales = output_scales(prepared, len(here))
    differences = [
        np.abs(one - other) / (scale or max(float(np.ptp(one)), 1e-12) / _LEVELS)
        for one, other, scale in zip(here, there, scales, strict=True)
    ]
    return {
        "device_levels_max": max(float(one.max()) for one in differences),
        "device_levels_mean": float(np.mean([float(one.mean()) for one in differences])),
    }


def _accuracy(
    work: Work, board: Board, file: File, cores: tuple[int, ...], shapes: Sequence[tuple[int, ...]]
) -> dict[str, float]:
    """The task's metrics of the device's own outputs on the whole test set."""
    parts: list[list[np.ndarray]] = []
    size = work.pack.size("test")
    for start in range(0, size, _AT_A_TIME):
        inputs = _saved(work, range(start, min(start + _AT_A_TIME, size)))
        parts.append(board.outputs(file, inputs, cores, work.group("latency").threads, shapes)[0])
        work.progress({"step": start, "steps": size})
    outputs = [np.concatenate(some) for some in zip(*parts, strict=True)]
    with torch.inference_mode():
        pattern = ExportedNetwork(file.engine, file.path)(to_network(work.pack.images("test", [0])))
    means = metric_means(work.task, like(pattern, outputs), work.pack.targets("test"))
    return {f"device_test_{name}": figure for name, figure in means.items()}


def like(pattern: Nested, outputs: Sequence[np.ndarray]) -> Nested:
    """What a file gave [N, ...], in its order, in the structure and the layout (channels first) of ``pattern``."""
    arrays = iter(outputs)

    def placed(leaf: torch.Tensor) -> torch.Tensor:
        array = torch.from_numpy(next(arrays))
        if array.shape[1:] != leaf.shape[1:] and array.ndim == 4:
            array = array.permute(0, 3, 1, 2)
        if array.shape[1:] != leaf.shape[1:]:
            raise StageError(f"the device gives {tuple(array.shape[1:])} where {tuple(leaf.shape[1:])} is given here")
        return array.contiguous()

    if len(leaves(pattern)) != len(outputs):
        raise StageError(f"the device gives {len(outputs)} outputs, and the network {len(leaves(pattern))}")
    return each(placed, pattern)


def _require_runtimes(device: Device, runtimes: dict[str, Any], files: Iterable[File]) -> None:
    """Raise StageError where the device lacks what a file needs."""
    lacking = sorted({file.engine for file in files if not file.libraries} - set(runtimes["runtimes"]))
    if lacking and device.benchmark:
        problem = f"{device.name}: its {device.benchmark} runs litert only, not {' and '.join(lacking)}"
        raise StageError(f"{problem}. Choose --set engine=litert --set device_reference=litert.")
    if lacking:
        packages = " ".join({"litert": "ai-edge-litert"}.get(name, name) for name in lacking)
        problem = f"{device.name}: its {device.python} has no {' and no '.join(lacking)}"
        hint = f"`{device.python} -m pip install {packages}` there, or --set device_reference to what it has"
        raise StageError(f"{problem}. {hint}.")


def _file(folder: Path) -> File:
    engine = str(read_form(folder).engine)
    return File(folder / file_name(engine), engine)


def _with_libraries(file: File, device: Device, facts: Facts) -> File:
    """The file with the libraries that go with it to a device; raises StageError where there are none."""
    if file.engine != EXECUTORCH or device.benchmark:
        return file
    if facts.system.startswith("Android"):
        raise StageError(f"{device.name}: PyPI's ExecuTorch is for Linux with glibc, and that is Android")
    try:
        return replace(file, libraries=libraries(facts.machine))
    except InputError as error:
        raise StageError(f"{device.name}: {error}") from error


def _saved(work: Work, places: Any) -> Path:
    """Test images as the network takes them, in a file [N, C, H, W] whose bytes depend on them alone."""
    places = list(places)
    file = work.scratch / f"images-{places[0]}-{len(places)}.npy"
    np.save(file, to_network(work.pack.images("test", places)).numpy())
    return file
