"""One node of the trie, and one whole cell, computed in this process: plain functions that run without Ray."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from grid.latency import measure_pair, profile_operators
from grid.plan import STAGE_VERSIONS, Cell, Node, Plan
from grid.settings import read_group
from grid.stages import StageStore, write_record
from model.checkpoint import checkpoint_sha256, load_checkpoint
from model.metrics import MAX_DEPTH_M, depth_metrics, sqnr_db
from model.network import NetworkSpec, build_network, normalize
from model.pack import Pack
from model.pretrained import load_pretrained_
from model.training import Progress, predict, train
from quant.artifact import Form, load_network, read_form, save_network, size_mb
from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.equalize import equalize
from quant.graph import fuse_bn
from quant.inspect import quantizer_state, require_state
from quant.qat import finetune, prepare_cold

CHECK_IMAGES = 8
SAMPLES = 4
OPERATORS = "operators.txt"
FLOAT_TOLERANCE = 1e-4


class StageError(RuntimeError):
    """A stage broke a promise (a changed float function, an artifact that reloads differently)."""


@dataclass(frozen=True)
class Context:
    """Where a node runs: the store, the packed data, the checkpoint to load, and the torch device."""

    storage: Path
    pack: Path
    checkpoint: Path | None = None
    device: str = "cpu"


@dataclass
class Outcome:
    """What a stage hands back beside its files: figures, what was asserted, and figures by epoch."""

    metrics: dict[str, Any] = field(default_factory=dict)
    asserted: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Work:
    """All that a stage function gets: its node, the folders of its inputs by role, and where to write."""

    node: Node
    inputs: dict[str, Path]
    out: Path
    scratch: Path
    store: StageStore
    context: Context
    progress: Progress

    @property
    def pack(self) -> Pack:
        """The packed data."""
        return Pack(self.context.pack)

    @property
    def device(self) -> torch.device:
        """Where training and calibration run."""
        return torch.device(self.context.device)

    def group(self, name: str) -> Any:
        """The spec of one settings group of this node."""
        return read_group(self.node.settings, name)


def run_node(node: Node, context: Context, progress: Progress = lambda info: None) -> dict[str, Any]:
    """Compute one node, or find it done, and return its record.

    Two processes never compute the same node: the second waits and finds it. Raises what the stage raises;
    nothing is then left in the store.
    """
    store = StageStore(context.storage)
    with store.claim(node.id) as done:
        if not done:
            _reset_process(node)
            with store.writer(node.id) as out:
                _compute(node, store, context, out, progress)
    return store.record(node.id)


def run_cell(plan: Plan, cell: Cell, context: Context, progress: Progress = lambda info: None) -> dict[str, dict]:
    """Compute one cell and the baselines it is compared with, in this process; records by stage."""
    for node in plan.nodes:
        if cell.key in node.cells:
            run_node(node, context, progress)
    store = StageStore(context.storage)
    return {stage: store.record(node_id) for stage, node_id in cell.nodes.items()}


def _reset_process(node: Node) -> None:
    """Undo what an earlier stage in this (reused) process may have left."""
    torch.manual_seed(int(node.settings.get("seed") or 0))
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_grad_enabled(True)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _compute(node: Node, store: StageStore, context: Context, out: Path, progress: Progress) -> None:
    inputs = {}
    for role, upstream in node.inputs:
        if not store.verify(upstream):
            raise StageError(f"{node.stage}: its {role} {upstream} is missing or damaged in {store.root}")
        inputs[role] = store.path(upstream)
    work = Work(node, inputs, out, store.scratch(node.id), store, context, progress)
    started = time.monotonic()
    outcome = STAGES[node.stage](work)
    _write(out, node, outcome, time.monotonic() - started)


def _write(out: Path, node: Node, outcome: Outcome, seconds: float) -> None:
    write_record(
        out,
        {
            "stage": node.stage,
            "settings": dict(node.settings),
            "inputs": [list(pair) for pair in node.inputs],
            "metrics": outcome.metrics,
            "asserted": outcome.asserted,
            "history": outcome.history,
            "seconds": seconds,
        },
    )


class CalibrationImages:
    """``count`` train images, un-augmented and normalized, drawn by ``seed``; read from the pack slice by slice."""

    def __init__(self, pack: Pack, count: int, seed: int) -> None:
        order = torch.randperm(pack.size("train"), generator=torch.Generator().manual_seed(seed))
        self.pack, self.indices = pack, sorted(order[:count].tolist())

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, where: slice) -> Tensor:
        return normalize(self.pack.images("train", self.indices[where]))


def _check_images(work: "Work") -> Tensor:
    return CalibrationImages(work.pack, CHECK_IMAGES, seed=0)[:]


def _load(work: Work) -> Outcome:
    checkpoint = work.context.checkpoint
    if checkpoint is None:
        raise StageError("load: no checkpoint was given")
    network, spec, metadata = load_checkpoint(checkpoint)
    expected = work.node.settings["checkpoint_sha256"]
    if checkpoint_sha256(checkpoint) != expected:
        raise StageError(f"load: {checkpoint} changed after the grid was planned")
    save_network(work.out, network.eval(), Form(spec, fused=False, form="float"))
    return Outcome(asserted={"checkpoint_sha256": expected, "checkpoint": metadata})


def _train(work: Work) -> Outcome:
    spec: NetworkSpec = work.group("network")
    train_spec = work.group("train")
    network = build_network(spec)
    load_pretrained_(network, spec, train_spec.init)
    history = train(
        network,
        work.pack,
        train_spec,
        seed=int(work.node.settings["seed"] or 0),
        device=work.device,
        scratch=work.scratch,
        progress=work.progress,
    )
    save_network(work.out, network.cpu(), Form(spec, fused=False, form="float"))
    best = max(history, key=lambda row: row["val_ssim"])
    return Outcome({"best_epoch": best["epoch"], "val_ssim": best["val_ssim"]}, {"init": train_spec.init}, history)


def _fuse(work: Work) -> Outcome:
    network = load_network(work.inputs["network"])
    fused = fuse_bn(network)
    change = _float_change(network, fused, _check_images(work), "fuse")
    save_network(work.out, fused, Form(read_form(work.inputs["network"]).network, fused=True, form="float"))
    return Outcome(asserted={"float_change": change})


def _equalize(work: Work) -> Outcome:
    network, form = load_network(work.inputs["network"]), read_form(work.inputs["network"])
    settings = work.node.settings
    images = CalibrationImages(work.pack, int(settings["calibrate.images"] or 0), int(settings["seed"] or 0))
    equalized = equalize(network, work.group("equalize"), images)
    change = _float_change(network, equalized, _check_images(work), "equalize")
    save_network(work.out, equalized, form)
    return Outcome(asserted={"float_change": change, "images": images.indices})


@torch.inference_mode()
def _float_change(before: nn.Module, after: nn.Module, images: Tensor, stage: str) -> float:
    """Largest change of the float function on real inputs; raises StageError above the tolerance or on NaN."""
    change = float((before.eval()(images) - after.eval()(images)).abs().max())
    if not change <= FLOAT_TOLERANCE:
        raise StageError(f"{stage} changed the float function by {change:.3g}; expected at most {FLOAT_TOLERANCE}")
    return change


def _calibrate(work: Work) -> Outcome:
    network, form = load_network(work.inputs["network"]), read_form(work.inputs["network"])
    spec, settings = work.group("calibrate"), work.node.settings
    images = CalibrationImages(work.pack, spec.images, int(settings["seed"] or 0))
    granularity = str(settings["granularity"])
    prepared = calibrate(network.to(work.device), granularity, spec, images, work.progress).cpu()
    save_network(work.out, prepared, Form(form.network, form.fused, "prepared", granularity))
    return Outcome(asserted={"images": images.indices, **quantizer_state(prepared)})


def _finetune(work: Work) -> Outcome:
    network, form = load_network(work.inputs["network"]), read_form(work.inputs["network"])
    spec, settings = work.group("calibrate"), work.node.settings
    granularity = str(settings["granularity"])
    prepared = network if form.form == "prepared" else prepare_cold(network, granularity, spec)
    history, state = finetune(
        prepared,  # type: ignore[arg-type]
        load_network(work.inputs["teacher"]),
        work.pack,
        work.group("qat"),
        weight_range=spec.weight_range,
        seed=int(settings["seed"] or 0),
        device=work.device,
        scratch=work.scratch,
        progress=work.progress,
    )
    save_network(work.out, prepared.cpu(), Form(form.network, form.fused, "prepared", granularity))
    best = max(history, key=lambda row: row["val_ssim"])
    return Outcome({"best_epoch": best["epoch"], "val_ssim": best["val_ssim"]}, state, history)


@torch.inference_mode()
def _convert(work: Work) -> Outcome:
    prepared, form = load_network(work.inputs["network"]), read_form(work.inputs["network"])
    state = require_state(prepared, "evaluate")
    int8 = qnnpack.convert(prepared)  # type: ignore[arg-type]
    engine = str(work.node.settings["engine"])
    save_network(work.out, int8, Form(form.network, form.fused, "int8", form.granularity, engine))
    images = _check_images(work)
    outputs = int8(images)
    if not torch.equal(outputs, load_network(work.out)(images)):
        raise StageError("convert: the saved int8 network computes something else after reloading")
    gap = float((outputs - prepared(images)).abs().mean())
    return Outcome(
        {"graph_hash": qnnpack.graph_hash(int8), "simulated_gap_mean": gap},
        {"reloads_exactly": True, **state},
    )


@torch.inference_mode()
def _evaluate(work: Work) -> Outcome:
    """Test metrics of the network as it ships, of its simulation, and its noise against the float network."""
    network = load_network(work.inputs["network"])
    images, target = work.pack.images("test"), work.pack.depth("test")
    state = require_state(network, "evaluate")
    prediction = _test_prediction(work, network, images)
    metrics: dict[str, Any] = depth_metrics(prediction, target)
    if "reference" in work.inputs:
        reference = torch.from_numpy(np.load(work.inputs["reference"] / "predictions.npy"))
        metrics["sqnr_db"] = sqnr_db(reference, prediction)
    simulated = _simulated_folder(work)
    if simulated is not None:
        simulation = predict(load_network(simulated), images, device=torch.device("cpu"), progress=work.progress)
        metrics["simulated_ssim"] = depth_metrics(simulation, target)["ssim"]
    metrics["size_mb"] = size_mb(network, work.out)
    np.save(work.out / "predictions.npy", prediction.numpy())
    shown = torch.linspace(0, len(images) - 1, min(SAMPLES, len(images))).long()
    np.savez(
        work.out / "samples.npz",
        image=images[shown].permute(0, 2, 3, 1).numpy(),
        truth=target[shown, 0].numpy() * MAX_DEPTH_M,
        prediction=prediction[shown, 0].numpy() * MAX_DEPTH_M,
    )
    return Outcome({"test_images": len(images), **metrics}, state)


def _test_prediction(work: Work, network: nn.Module, images: Tensor) -> Tensor:
    """The network's test predictions; for an int8 network found by its hash if another cell has the same one."""
    graph_hash = _graph_hash(work)
    if graph_hash is None:
        return predict(network, images, device=torch.device("cpu"), progress=work.progress)

    def compute(folder: Path) -> Outcome:
        predicted = predict(network, images, device=torch.device("cpu"), progress=work.progress)
        np.save(folder / "predictions.npy", predicted.numpy())
        return Outcome()

    found = _once(work, ["predictions", graph_hash, work.pack.fingerprint], compute)
    return torch.from_numpy(np.load(work.store.path(found) / "predictions.npy"))


def _graph_hash(work: Work) -> str | None:
    """The identity of the int8 network to look at, or None for a float network."""
    record = json.loads((work.inputs["network"] / "result.json").read_text())
    return record["metrics"].get("graph_hash")


def _once(work: Work, key: list[str], compute: Callable[[Path], Outcome]) -> str:
    """Compute what depends on the effective int8 network alone, once for all cells that share it; its id.

    Cells of equal hash are one network: their accuracy and latency are one measurement.
    """
    shared = hashlib.sha256(json.dumps([work.node.stage, STAGE_VERSIONS[work.node.stage], *key]).encode())
    node_id = shared.hexdigest()[:20]
    with work.store.claim(node_id) as done:
        if not done or not work.store.verify(node_id):
            with work.store.writer(node_id) as out:
                started = time.monotonic()
                _write(out, work.node, compute(out), time.monotonic() - started)
    return node_id


def _simulated_folder(work: Work) -> Path | None:
    """The prepared network that an int8 network was converted from, or None for a float network."""
    if read_form(work.inputs["network"]).form != "int8":
        return None
    record = json.loads((work.inputs["network"] / "result.json").read_text())
    return work.store.path(dict(record["inputs"])["network"])


def _profile(work: Work) -> Outcome:
    graph_hash = _graph_hash(work)
    if graph_hash is None:
        return _measure(work, work.out)
    settings = json.dumps(dict(work.node.settings), sort_keys=True)
    found = _once(work, [graph_hash, settings, str(work.inputs["reference"].name)], lambda out: _measure(work, out))
    shutil.copy(work.store.path(found) / OPERATORS, work.out)
    record = work.store.record(found)
    return Outcome(record["metrics"], record["asserted"])


@torch.inference_mode()
def _measure(work: Work, out: Path) -> Outcome:
    """Latency beside the float reference, and the profiler's table of operators."""
    network, reference = load_network(work.inputs["network"]), load_network(work.inputs["reference"])
    require_state(network, "evaluate")
    example = normalize(work.pack.images("test", [0]))
    spec = work.group("latency")
    latency = measure_pair(network, reference, example, spec)
    step_ms, table = profile_operators(network, example, spec.threads)
    (out / OPERATORS).write_text(table)
    return Outcome(
        {
            "latency_ms_p50": latency.p50_ms,
            "latency_ms_p90": latency.p90_ms,
            "latency_ratio": latency.ratio,
            "latency_ratio_low": latency.ratio_low,
            "latency_ratio_high": latency.ratio_high,
            "reference_ms_p50": latency.reference_p50_ms,
            "pairs": latency.pairs,
            "profiler_step_ms": step_ms,
        },
        {"cpu_model": cpu_model(), "threads": spec.threads},
    )


def cpu_model() -> str:
    """The processor's name, as the kernel gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


STAGES: dict[str, Callable[[Work], Outcome]] = {
    "load": _load,
    "train": _train,
    "fuse": _fuse,
    "equalize": _equalize,
    "calibrate": _calibrate,
    "finetune": _finetune,
    "convert": _convert,
    "evaluate": _evaluate,
    "profile": _profile,
}
