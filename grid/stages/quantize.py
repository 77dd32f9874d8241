"""The stages from the float network to the int8 network: calibrate, round, fine-tune, convert, analyze."""

import dataclasses
import json

import torch
from torch import nn

from grid.planning.output_files import INSPECTION
from grid.stages.analysis_files import write_analysis
from grid.stages.calibration_images import CalibrationImages, calibrated_on, check_images, drawn_images, unseen_images
from grid.stages.work import Outcome, StageError, Work
from model.network.build import example_image
from model.tasks.nested import each, leaves
from model.tasks.task import metric_means
from quant.analysis.mixed_precision import keep_worst_float
from quant.analysis.site_errors import analyze
from quant.artifact import load_network, load_prepared, read_form, save_network
from quant.bias_correction import correct_bias
from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.engines.card import output_name
from quant.engines.catalog import TORCH, is_exported
from quant.engines.exported import ExportedNetwork, export, file_name
from quant.inspection.inspection import inspect_prepared
from quant.qat.finetune import finetune, prepare_for_qat
from quant.state import quantizer_state, require_state
from quant.timing_class import file_structure
from quant.tracing.trace import trace
from quant.weight_rounding.off_grid import lean_, load_off_grid, save_off_grid
from quant.weight_rounding.rounding import round_weights_optq

_RANKED_ON = 8
"""Images: ranking runs the network once a site for each of them."""


def calibrate_ranges(work: Work) -> Outcome:
    """The network with fake quantizers, calibrated on training images."""
    network, form = load_network(work.inputs["network"]), read_form(work.inputs["network"])
    spec, settings = work.group("calibrate"), work.node.settings
    network = network.to(work.device)
    images, chosen = drawn_images(work, network)
    granularity = str(settings["granularity"])
    prepared = calibrate(network, granularity, spec, images, work.progress, form.weight_bits).cpu()
    save_network(work.out, prepared, dataclasses.replace(form, form="prepared", granularity=granularity))
    return Outcome(asserted={**chosen, **quantizer_state(prepared)})


def round_weights(work: Work) -> Outcome:
    """The calibrated network with rounded weights and biases to match; beside it what is best off the grid."""
    prepared, form = load_prepared(work.inputs["network"]), read_form(work.inputs["network"])
    spec, seed = work.group("rounding"), int(work.node.settings["seed"] or 0)
    images = calibrated_on(work, spec.images)
    prepared = prepared.to(work.device)
    rounded, layers, off_grid = round_weights_optq(prepared, spec, images, seed=seed, progress=work.progress)
    save_network(work.out, rounded.cpu(), form)
    save_off_grid(work.out, off_grid)
    metrics = {"layers": [dataclasses.asdict(layer) for layer in layers]}
    return Outcome(metrics, {"images": images.indices, **quantizer_state(rounded)})


def correct_biases(work: Work) -> Outcome:
    """The calibrated network with biases that take up the mean error of quantization."""
    prepared, form = load_prepared(work.inputs["network"]), read_form(work.inputs["network"])
    spec = work.group("bias_correction")
    images = calibrated_on(work, spec.images)
    original = load_prepared(work.inputs["original"]) if "original" in work.inputs else None
    corrected = correct_bias(prepared.to(work.device), spec, images, work.progress, original)
    save_network(work.out, corrected.cpu(), form)
    return Outcome(asserted={"images": images.indices, **quantizer_state(corrected)})


def choose_float_sites(work: Work) -> Outcome:
    """The calibrated network with its worst sites left in float, or rounded to more bits."""
    prepared, form = load_prepared(work.inputs["network"]), read_form(work.inputs["network"])
    spec = work.group("mixed_precision")
    seed = int(work.node.settings["seed"] or 0)
    images = CalibrationImages(work.pack, min(spec.images, _RANKED_ON), seed)
    unseen = unseen_images(work, spec.images, "original")
    measured_on = unseen or CalibrationImages(work.pack, spec.images, seed)
    task, targets = work.task, work.pack.targets("train", measured_on.indices)
    mixed, chosen = keep_worst_float(
        prepared,
        spec,
        images,
        lambda outputs: task.gain(metric_means(task, outputs, targets)),
        measured_on=measured_on,
        original=load_prepared(work.inputs["original"]),
        progress=work.progress,
    )
    save_network(work.out, mixed, form)
    metrics = {"sqnr_db": chosen.sqnr_db, "metric_loss": chosen.metric_loss, "sites": chosen.sites}
    simulated = spec.activation_bits is not None
    names = {"float_sites": () if simulated else chosen.names, "simulated_sites": chosen.names if simulated else ()}
    asserted = {**names, "activation_bits": spec.activation_bits, "tried": chosen.tried, "images": images.indices}
    asserted |= {"measured_on": measured_on.indices, "calibrated_on_them": unseen is None}
    return Outcome(metrics, {**asserted, **quantizer_state(mixed)})


def finetune_quantized(work: Work) -> Outcome:
    """The network after quantization-aware training: its best epoch on the validation images."""
    folder, granularity = work.inputs["network"], str(work.node.settings["granularity"])
    form = read_form(folder)
    if form.form == "prepared":
        prepared = load_prepared(folder)
        if "rounded" in work.inputs:
            lean_(prepared, load_off_grid(work.inputs["rounded"]))
    else:
        prepared = prepare_for_qat(
            trace(load_network(folder), example_image(form.network)),
            granularity,
            work.group("calibrate"),
            form.weight_bits,
        )
    kept_float = work.record("mixed")["asserted"]["float_sites"] if "mixed" in work.inputs else []
    teacher = load_network(work.inputs["teacher"])
    trained = finetune(prepared, teacher, work.group("qat"), work.training_run, kept_float)
    save_network(work.out, prepared.cpu(), dataclasses.replace(form, form="prepared", granularity=granularity))
    metrics = {
        "best_epoch": trained.best_epoch,
        **work.task.choosing(trained.history[trained.best_epoch]),
        "weights_changed": trained.weights_changed,
        "bn_live_steps": trained.bn_live_steps,
    }
    return Outcome(metrics, trained.asserted, trained.history)


def convert_network(work: Work) -> Outcome:
    """The network as it ships, on its engine; it must reload to the same outputs."""
    source, form = load_network(work.inputs["network"]), read_form(work.inputs["network"])
    engine = str(work.node.settings["engine"])
    form = dataclasses.replace(form, form="float" if form.form == "float" else "int8", engine=engine)
    state = require_state(source, "evaluate")
    converted: nn.Module
    known = {}  # what the files of the engine do not say
    if is_exported(engine):
        file = work.out / file_name(engine)
        graph_hash = export(source, engine, example_image(form.network), file, output_name(form.network.task))
        known["timing_class"] = file_structure(source, engine, example_image(form.network))
        converted = ExportedNetwork(engine, file)
    else:
        int8 = qnnpack.convert(load_prepared(work.inputs["network"]), engine)
        converted, graph_hash = int8, qnnpack.graph_hash(int8, engine)
    save_network(work.out, converted, form)
    images = check_images(work)
    with torch.inference_mode():
        outputs = converted(images)
        if not all(leaves(each(torch.equal, outputs, load_network(work.out)(images))).values()):
            raise StageError("convert: the saved network computes something else after reloading")
        gaps = each(lambda one, other: (one - other).abs().mean(), outputs, source(images))
        gap = max(map(float, leaves(gaps).values()))
    # A float network's figures are its own: the hash is what tells int8 networks apart.
    hashed = {"graph_hash": graph_hash} if form.form == "int8" else {}
    saturating = {"saturates": True} if engine in TORCH and "graph_hash" in hashed and _saturates(engine) else {}
    return Outcome({**hashed, **known, "simulated_gap_mean": gap}, {"reloads_exactly": True, **saturating, **state})


def _saturates(engine: str) -> bool:
    from quant.engines.saturation import saturates  # torch.ao: a PyTorch without it has the other engines left

    return saturates(engine)


def analyze_sites(work: Work) -> Outcome:
    """The error of each quantizer, alone and together with those before it, and where each operator runs."""
    prepared = load_prepared(work.inputs["network"])
    original = load_prepared(work.inputs["original"]) if "original" in work.inputs else None
    images = CalibrationImages(work.pack, work.group("analyze").images, int(work.node.settings["seed"] or 0))
    errors = analyze(prepared, images, work.progress, original=original)
    write_analysis(work.out, errors, len(images))
    inspection = inspect_prepared(prepared, images[0:1])
    (work.out / INSPECTION).write_text(json.dumps(inspection.document(), separators=(",", ":"), allow_nan=False))
    metrics = {"sites": len(errors), "sqnr_db": errors[-1].cumulative_sqnr_db if errors else None}
    return Outcome(metrics, {"images": images.indices, **quantizer_state(prepared)})
