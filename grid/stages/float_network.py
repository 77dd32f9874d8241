"""The stages that make the float network: load or train, merge branches, fuse BatchNorm, equalize, fine-tune."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from grid.stages.calibration_images import CalibrationImages, check_images, drawn_images
from grid.stages.work import Outcome, StageError, Work
from model.network.build import build_network, example_image
from model.network.checkpoint import checkpoint_sha256, load_checkpoint
from model.network.pretrained import load_pretrained_
from model.network.spec import NetworkSpec
from model.network.user_network import OWN
from model.tasks.nested import each, leaves
from model.training import TrainSpec, train
from quant.analysis.weight_widths import choose_widths, widen_worst
from quant.artifact import Form, load_network, read_form, save_network
from quant.equalization.equalize import equalize
from quant.prepare import quantizers
from quant.qat.control import prepare_control, take_weights_
from quant.qat.finetune import finetune
from quant.tracing.branches import merge_branches
from quant.tracing.trace import fuse_bn, trace

FLOAT_TOLERANCE = 1e-4


def load_float(work: Work) -> Outcome:
    """The float network of the checkpoint."""
    checkpoint = work.context.checkpoint
    if checkpoint is None:
        raise StageError("load: no checkpoint was given")
    network, spec, metadata = load_checkpoint(checkpoint, work.group("network"))
    expected = work.node.settings["checkpoint_sha256"]
    if checkpoint_sha256(checkpoint) != expected:
        raise StageError(f"load: {checkpoint} changed after the grid was planned")
    save_network(work.out, network.eval(), Form(spec, fused=False, form="float"))
    return Outcome(asserted={"checkpoint_sha256": expected, "checkpoint": metadata})


def train_float(work: Work) -> Outcome:
    """A trained float network: its best epoch on the validation images."""
    spec: NetworkSpec = work.group("network")
    train_spec: TrainSpec = work.group("train")
    if train_spec.init == "checkpoint":
        network: nn.Module = load_network(work.inputs["network"])
    else:
        network = build_network(spec)
        load_pretrained_(network, spec, train_spec.init)
    history = train(network, train_spec, work.training_run)
    save_network(work.out, network.cpu(), Form(spec, fused=False, form="float"))
    best = train_spec.best_epoch(history, work.task)
    own = spec.encoder.startswith(OWN) and train_spec.init != "checkpoint"
    asserted = {"init": "build" if own else train_spec.init}
    return Outcome({"best_epoch": best["epoch"], **work.task.choosing(best)}, asserted, history)


def merge_parallel_branches(work: Work) -> Outcome:
    """The network with its parallel branches merged into convolutions; the float function stays."""
    return _rewritten(work, merge_branches, "merge", merged=True)


def fuse_batchnorm(work: Work) -> Outcome:
    """The network with BatchNorm folded into its convolutions; the float function stays."""
    return _rewritten(work, fuse_bn, "fuse", fused=True)


def _rewritten(work: Work, rewrite: Callable[[nn.Module, Tensor], nn.Module], stage: str, **form: Any) -> Outcome:
    """Save the network as ``rewrite`` gives it back, with what its form is now, if its float function stayed."""
    network, before = load_network(work.inputs["network"]), read_form(work.inputs["network"])
    rewritten = rewrite(network, example_image(before.network))
    change = _float_change(network, rewritten, check_images(work), stage)
    save_network(work.out, rewritten, dataclasses.replace(before, **form))
    return Outcome(asserted={"float_change": change})


def choose_weight_widths(work: Work) -> Outcome:
    """The network as it is, with the width that the weights of each convolution are to have."""
    network, form = load_network(work.inputs["network"]), read_form(work.inputs["network"])
    settings, keep = work.node.settings, work.group("keep_8bit")
    granularity, bits = str(settings["granularity"]), int(settings["weight_bits"] or 8)
    chosen: dict[str, object] = {}
    widths = choose_widths(network, bits, keep.first_last, example_image(form.network))
    if keep.worst:
        images, chosen = drawn_images(work, network)
        spec = work.group("equalize")
        equalized = network if spec is None else equalize(network, spec, images, granularity, widths)
        ranked_on = CalibrationImages(work.pack, keep.images, int(settings["seed"] or 0))
        widths = widen_worst(equalized, widths, keep.worst, granularity, ranked_on, work.progress)
    save_network(work.out, network, dataclasses.replace(form, weight_bits=widths))
    return Outcome({"weight_bits": widths}, chosen)


def equalize_channels(work: Work) -> Outcome:
    """The network with scaled channels; the float function stays."""
    network, form = load_network(work.inputs["network"]), read_form(work.inputs["network"])
    on_device = copy.deepcopy(network).to(work.device)
    images, chosen = drawn_images(work, on_device)
    spec = work.group("equalize")
    equalized = equalize(on_device, spec, images, str(work.node.settings["granularity"]), form.weight_bits)
    change = _float_change(network, equalized, check_images(work), "equalize")
    save_network(work.out, equalized, dataclasses.replace(form, scaled_silu=spec.silu))
    return Outcome(asserted={"float_change": change, **chosen})


def finetune_float(work: Work) -> Outcome:
    """The control of QAT: the float network after QAT's training with all quantizers off, at its best epoch."""
    network, form = trace(load_network(work.inputs["network"])), read_form(work.inputs["network"])
    settings = work.node.settings
    images = CalibrationImages(work.pack, int(settings["calibrate.images"] or 0), int(settings["seed"] or 0))
    prepared = prepare_control(network, str(settings["granularity"]), work.group("calibrate"), images)
    teacher = load_network(work.inputs["teacher"])
    trained = finetune(prepared, teacher, work.group("qat"), work.training_run, quantizers(prepared))
    take_weights_(network, prepared.cpu())
    save_network(work.out, network.eval(), form)
    best = trained.history[trained.best_epoch]
    figures = {"best_epoch": best["epoch"], **work.task.choosing(best)}
    return Outcome(figures, trained.asserted, trained.history)


@torch.inference_mode()
def _float_change(before: nn.Module, after: nn.Module, images: Tensor, stage: str) -> float:
    """Largest change of the float function on real inputs; raises StageError above the tolerance or on NaN."""
    changes = each(lambda one, other: (one - other).abs().max(), before.eval()(images), after.eval()(images))
    change = max(map(float, leaves(changes).values()))
    if not change <= FLOAT_TOLERANCE:
        raise StageError(f"{stage} changed the float function by {change:.3g}; expected at most {FLOAT_TOLERANCE}")
    return change
