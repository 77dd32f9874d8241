"""One node of the trie, and one whole cell, computed in this process: plain functions that run without Ray."""

import dataclasses
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from grid.planning.plan import Cell, Node, Plan
from grid.stages.analysis_files import write_analysis
from grid.stages.calibration_images import CalibrationImages, calibrated_on, check_images, drawn_images
from grid.stages.measure import evaluate, profile
from grid.stages.watchdog import hung_log, watched
from grid.stages.work import Context, Outcome, StageError, Work, write_outcome
from grid.storage.result_store import StageStore
from model.network.checkpoint import checkpoint_sha256, load_checkpoint
from model.network.depth_network import NetworkSpec, build_network
from model.network.pretrained import load_pretrained_
from model.network.user_network import OWN, register_network
from model.training import Progress, TrainSpec, train
from quant.analysis.mixed_precision import mix
from quant.analysis.site_errors import analyze
from quant.artifact import Form, load_network, read_form, save_network
from quant.bias_correction import correct_bias
from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.engines.catalog import is_exported
from quant.engines.exported import ExportedNetwork, export, file_name
from quant.equalization.equalize import equalize
from quant.graph import fuse_bn
from quant.qat.finetune import finetune, prepare_cold
from quant.state import quantizer_state, require_state
from quant.weight_rounding.rounding import learn_rounding

FLOAT_TOLERANCE = 1e-4


def run_node(
    node: Node,
    context: Context,
    progress: Progress = lambda info: None,
    place: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> dict[str, Any]:
    """Compute one node in a ``place`` (its cores), or find it done, and return its record.

    Two processes never compute the same node: the second waits, without a place, and finds it. Raises what the
    stage raises; nothing is then left in the store. With ``context.stall_s`` a stage that says nothing for so
    long ends this process.
    """
    context = context.here()
    if context.network:
        register_network(context.network)
    store = context.stages()
    with store.claim(node.id) as done:
        if not done:
            log = hung_log(store.root, node.stage, node.id)
            with place(), watched(progress, context.stall_s, log) as report:
                _reset_process(node)
                with store.writer(node.id) as out:
                    _compute(node, store, context, out, report)
    return store.record(node.id)


def run_cell(plan: Plan, cell: Cell, context: Context, progress: Progress = lambda info: None) -> dict[str, dict]:
    """Compute one cell and the baselines it is compared with, in this process; records by stage."""
    for node in plan.nodes:
        if cell.key in node.cells:
            run_node(node, context, progress)
    store = context.stages()
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
    write_outcome(out, node, outcome, time.monotonic() - started)


def _load(work: Work) -> Outcome:
    checkpoint = work.context.checkpoint
    if checkpoint is None:
        raise StageError("load: no checkpoint was given")
    network, spec, metadata = load_checkpoint(checkpoint, work.group("network"))
    expected = work.node.settings["checkpoint_sha256"]
    if checkpoint_sha256(checkpoint) != expected:
        raise StageError(f"load: {checkpoint} changed after the grid was planned")
    save_network(work.out, network.eval(), Form(spec, fused=False, form="float"))
    return Outcome(asserted={"checkpoint_sha256": expected, "checkpoint": metadata})


def _train(work: Work) -> Outcome:
    spec: NetworkSpec = work.group("network")
    train_spec: TrainSpec = work.group("train")
    if train_spec.init == "checkpoint":
        network: nn.Module = load_network(work.inputs["network"])
    else:
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
    best = train_spec.best_epoch(history)
    own = spec.encoder.startswith(OWN) and train_spec.init != "checkpoint"
    asserted = {"init": "build" if own else train_spec.init}
    return Outcome({"best_epoch": best["epoch"], "val_ssim": best["val_ssim"]}, asserted, history)


def _fuse(work: Work) -> Outcome:
    network = load_network(work.inputs["network"])
    fused = fuse_bn(network)
    change = _float_change(network, fused, check_images(work), "fuse")
    save_network(work.out, fused, Form(read_form(work.inputs["network"]).network, fused=True, form="float"))
    return Outcome(asserted={"float_change": change})


def _equalize(work: Work) -> Outcome:
    network, form = load_network(work.inputs["network"]), read_form(work.inputs["network"])
    images, chosen = drawn_images(work, network)
    spec = work.group("equalize")
    equalized = equalize(network, spec, images, str(work.node.settings["granularity"]))
    change = _float_change(network, equalized, check_images(work), "equalize")
    save_network(work.out, equalized, dataclasses.replace(form, scaled_silu=spec.silu))
    return Outcome(asserted={"float_change": change, **chosen})


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
    network = network.to(work.device)
    images, chosen = drawn_images(work, network)
    granularity = str(settings["granularity"])
    prepared = calibrate(network, granularity, spec, images, work.progress).cpu()
    save_network(work.out, prepared, dataclasses.replace(form, form="prepared", granularity=granularity))
    return Outcome(asserted={**chosen, **quantizer_state(prepared)})


def _round(work: Work) -> Outcome:
    network, form = load_network(work.inputs["network"]), read_form(work.inputs["network"])
    spec, seed = work.group("rounding"), int(work.node.settings["seed"] or 0)
    images = calibrated_on(work, spec.images)
    prepared = network.to(work.device)
    rounded, layers = learn_rounding(prepared, spec, images, seed=seed, progress=work.progress)  # type: ignore[arg-type]
    save_network(work.out, rounded.cpu(), form)
    metrics = {"layers": [dataclasses.asdict(layer) for layer in layers]}
    return Outcome(metrics, {"images": images.indices, **quantizer_state(rounded)})


def _correct_bias(work: Work) -> Outcome:
    network, form = load_network(work.inputs["network"]), read_form(work.inputs["network"])
    spec = work.group("bias_correction")
    images = calibrated_on(work, spec.images)
    original = load_network(work.inputs["original"]) if "original" in work.inputs else None
    corrected = correct_bias(network.to(work.device), spec, images, work.progress, original)  # type: ignore[arg-type]
    save_network(work.out, corrected.cpu(), form)
    return Outcome(asserted={"images": images.indices, **quantizer_state(corrected)})


def _mix(work: Work) -> Outcome:
    network, form = load_network(work.inputs["network"]), read_form(work.inputs["network"])
    spec = work.group("mixed_precision")
    images = CalibrationImages(work.pack, spec.images, int(work.node.settings["seed"] or 0))
    mixed, mixture = mix(
        network,  # type: ignore[arg-type]
        spec,
        images,
        work.pack.depth("train", images.indices),
        original=load_network(work.inputs["original"]),  # type: ignore[arg-type]
        progress=work.progress,
    )
    save_network(work.out, mixed, form)
    metrics = {"sqnr_db": mixture.sqnr_db, "ssim_loss": mixture.ssim_loss, "sites": mixture.sites}
    asserted = {"float_sites": mixture.names, "tried": mixture.tried, "images": images.indices}
    return Outcome(metrics, {**asserted, **quantizer_state(mixed)})


def _kept_float(work: Work) -> list[str]:
    """The sites that mixed precision has left in float, where it made the network that the stage works on."""
    record = work.store.record(dict(work.node.inputs)["network"])
    return record["asserted"]["float_sites"] if record["stage"] == "mix" else []


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
        seed=int(settings["seed"] or 0),
        device=work.device,
        scratch=work.scratch,
        progress=work.progress,
        kept_float=_kept_float(work),
    )
    save_network(work.out, prepared.cpu(), dataclasses.replace(form, form="prepared", granularity=granularity))
    best = max(history, key=lambda row: row["val_ssim"])
    return Outcome({"best_epoch": best["epoch"], "val_ssim": best["val_ssim"]}, state, history)


def _convert(work: Work) -> Outcome:
    source, form = load_network(work.inputs["network"]), read_form(work.inputs["network"])
    engine = str(work.node.settings["engine"])
    form = dataclasses.replace(form, form="float" if form.form == "float" else "int8", engine=engine)
    state = require_state(source, "evaluate")
    converted: nn.Module
    if is_exported(engine):
        file = work.out / file_name(engine)
        graph_hash = export(source, engine, form.network.input_size, file)
        converted = ExportedNetwork(engine, file)
    else:
        int8 = qnnpack.convert(source, engine)  # type: ignore[arg-type]
        converted, graph_hash = int8, qnnpack.graph_hash(int8, engine)
    save_network(work.out, converted, form)
    images = check_images(work)
    with torch.inference_mode():
        outputs = converted(images)
        if not torch.equal(outputs, load_network(work.out)(images)):
            raise StageError("convert: the saved network computes something else after reloading")
        gap = float((outputs - source(images)).abs().mean())
    # A float network's figures are its own: the hash is what tells int8 networks apart.
    hashed = {"graph_hash": graph_hash} if form.form == "int8" else {}
    return Outcome({**hashed, "simulated_gap_mean": gap}, {"reloads_exactly": True, **state})


def _analyze(work: Work) -> Outcome:
    prepared = load_network(work.inputs["network"])
    original = load_network(work.inputs["original"]) if "original" in work.inputs else None
    images = CalibrationImages(work.pack, work.group("analyze").images, int(work.node.settings["seed"] or 0))
    errors = analyze(prepared, images, work.progress, original=original)  # type: ignore[arg-type]
    write_analysis(work.out, errors, len(images))
    metrics = {"sites": len(errors), "sqnr_db": errors[-1].cumulative_sqnr_db if errors else None}
    return Outcome(metrics, {"images": images.indices, **quantizer_state(prepared)})


STAGES: dict[str, Callable[[Work], Outcome]] = {
    "load": _load,
    "train": _train,
    "fuse": _fuse,
    "equalize": _equalize,
    "calibrate": _calibrate,
    "round": _round,
    "correct_bias": _correct_bias,
    "mix": _mix,
    "finetune": _finetune,
    "convert": _convert,
    "evaluate": evaluate,
    "profile": profile,
    "analyze": _analyze,
}
