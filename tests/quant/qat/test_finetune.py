"""That quantization-aware training trains quantized, freezes when it says, keeps the best epoch and resumes exactly."""

import copy
import itertools
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from model.epochs import TrainingRun
from model.images import normalize
from model.noise import sqnr_db
from model.training import validate
from quant.engines import qnnpack
from quant.graph import bn_factor
from quant.prepare import prepare, quant_convs, quantizers
from quant.qat.finetune import finetune, prepare_for_qat
from quant.recipe import CalibrateSpec, QatSpec
from quant.state import QuantizerStateError, require_state
from quant.tracing.trace import fuse_bn
from tests.quant.networks import (
    activation_quantizers,
    freeze_at_unit_ranges_,
    reference,
    same_tensors,
    weight_quantizers,
)
from tests.quant.qat.training import CALIBRATE, CPU, SPEC, run, warm


def test_eval_mode_is_not_training(network, pack):
    prepared = prepare_for_qat(network, "per_channel", CALIBRATE)
    with pytest.raises(QuantizerStateError, match="eval mode"):
        require_state(prepared.eval(), "finetune")
    _, asserted = run(prepared, pack, network, QatSpec(epochs=1, batch_size=8))
    assert asserted["training"], "training puts the network in train mode itself, and records it"


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("weight_range", ["minmax", "mse"])
def test_every_weight_is_rounded_in_every_training_step(source, network, pack, granularity, weight_range):
    prepared = prepare_for_qat(source, granularity, CalibrateSpec(weight_range=weight_range))
    rounded: dict[str, list[int]] = {}

    def watch(name):
        def hook(module, given, out):
            if not module.training:
                return
            levels = out.detach() / module.scale.reshape(-1, 1, 1, 1)
            assert torch.allclose(levels, levels.round(), atol=2e-2), f"{name} is not on its grid"
            assert levels.abs().max() <= 127.01, f"{name} is not symmetric"
            assert (module.zero_point == 0).all()
            rounded.setdefault(name, []).append(int((out != given[0]).sum()))

        return hook

    for name, quantizer in weight_quantizers(prepared).items():
        quantizer.register_forward_hook(watch(name))
    run(prepared, pack, network, QatSpec(epochs=2, batch_size=8))
    assert rounded.keys() == weight_quantizers(prepared).keys()
    assert all(len(counts) == 2 * 2 and min(counts) > 0 for counts in rounded.values())


def test_the_loss_falls_and_the_quantized_network_gets_better(source, network, pack):
    prepared = warm(source, pack, "per_tensor")
    before = validate(copy.deepcopy(prepared), pack, CPU)
    history, _ = run(prepared, pack, network, QatSpec(epochs=5, batch_size=4, travel=7.0, distillation=0.0))
    assert history[0]["val_ssim"] == before["ssim"], "epoch 0 is the network as it was given"
    assert history[-1]["train_loss"] < 0.9 * history[1]["train_loss"]
    assert max(row["val_ssim"] for row in history) > before["ssim"]


def grid(conv):
    """The grid of the weight in front of BatchNorm, whose factor scales both."""
    return conv.weight_quantizer.scale / (1.0 if conv.bn is None else bn_factor(conv.bn).detach().abs())


def test_calibrated_ranges_stay_where_they_are(source, network, pack):
    prepared = warm(source, pack, "per_tensor", spec=CalibrateSpec(weight_range="mse"))
    before = {name: (q.scale.clone(), q.zero_point.clone()) for name, q in quantizers(prepared).items()}
    seen = []

    def unchanged(info):
        named = quantizers(prepared).items()
        seen.append(
            all(torch.equal(q.scale, before[n][0]) and torch.equal(q.zero_point, before[n][1]) for n, q in named)
        )

    run(prepared, pack, network, progress=unchanged)
    assert len(seen) > 10
    assert all(seen)


def test_cold_ranges_follow_the_data_and_then_freeze(source, network, pack):
    prepared = prepare_for_qat(source, "per_channel", CALIBRATE)
    states: list[dict] = []
    spec = QatSpec(epochs=4, batch_size=4, travel=2.0, freeze_ranges_after=0.5, freeze_bn_after=0.75)
    norms = [conv.bn for conv in quant_convs(prepared).values() if conv.bn is not None]

    def progress(info):
        if "step" in info:
            activations, weights = activation_quantizers(prepared), weight_quantizers(prepared)
            states.append(
                {
                    "ranges": {n: (float(q.low), float(q.high)) for n, q in activations.items() if not q.fixed},
                    "fixed": [(float(q.scale), int(q.zero_point)) for q in activations.values() if q.fixed],
                    "weights": {name: q.scale.clone() for name, q in weights.items()},
                    "grids": {name: grid(conv) for name, conv in quant_convs(prepared).items()},
                    "statistics": [norm.running_mean.clone() for norm in norms],
                }
            )

    run(prepared, pack, network, spec, progress=progress)
    assert len(states) == 16
    moved = [a["ranges"] != b["ranges"] for a, b in pairwise(states)]
    assert all(moved[:7]), "before half of the steps ranges follow"
    assert not any(moved[7:]), "then they stay"
    assert all(state["fixed"] == [(1 / 256, 0)] for state in states)
    assert not any(same_tensors(a["weights"], b["weights"]) for a, b in pairwise(states[:12]))
    kept = [all(torch.allclose(a["grids"][name], b["grids"][name]) for name in b["grids"]) for a, b in pairwise(states)]
    assert not any(kept[:11])
    assert all(kept[12:]), "weight ranges freeze with BatchNorm, of which they depend"
    for old, new, step in zip(states, states[1:], range(1, 16), strict=False):
        for before, after in zip(old["statistics"], new["statistics"], strict=True):
            assert torch.equal(before, after) == (step >= 12)


def test_a_followed_weight_range_ends_as_that_of_the_trained_weight(source, network, pack):
    prepared = prepare_for_qat(source, "per_channel", CALIBRATE)
    run(prepared, pack, network, QatSpec(epochs=2, batch_size=4, freeze_bn_after=1.0, travel=2.0))
    for conv in quant_convs(prepared).values():
        largest = conv.folded()[0].detach().abs().amax((1, 2, 3))
        assert torch.allclose(conv.weight_quantizer.scale, largest / 127, rtol=1e-5)


def test_weight_ranges_by_mse_stay(network, pack):
    prepared = prepare_for_qat(network, "per_tensor", CalibrateSpec(weight_range="mse"))
    before = {name: q.scale.clone() for name, q in weight_quantizers(prepared).items()}
    run(prepared, pack, network)
    assert all(torch.equal(q.scale, before[name]) for name, q in weight_quantizers(prepared).items())


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("start", ["cold", "calibrated"])
def test_the_trained_network_converts_with_batchnorm_live_or_folded(source, network, pack, granularity, start):
    cold = start == "cold"
    prepared = prepare_for_qat(source, granularity, CALIBRATE) if cold else warm(source, pack, granularity)
    run(prepared, pack, network, QatSpec(epochs=2, batch_size=4, travel=2.0))
    int8 = qnnpack.convert(prepared)
    images = normalize(pack.images("test"))
    simulated, shipped = reference(prepared, images), reference(int8, images)
    assert simulated.std() > 0.02
    assert sqnr_db(simulated, shipped) > 20
    levels = (simulated - shipped).abs() / prepared.get_submodule("quantizers.head").scale
    assert levels.mean() < 0.3, "one rounding that falls the other way moves few pixels, a wrong scale moves all"


def test_the_teacher_is_listened_to_and_left_alone(network, pack, monkeypatch):
    scores = itertools.count(1.0)  # the last epoch is the best one, whatever a constant teacher does to the pictures
    monkeypatch.setattr("quant.qat.finetune._validate_frozen", lambda *_: {"ssim": next(scores)})

    class Constant(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.level = torch.nn.Parameter(torch.tensor(5.0))

        def forward(self, x):
            return self.level.expand(len(x), 1, x.shape[2] // 4, x.shape[3] // 4)

    means = {}
    for distillation in (0.0, 1.0):
        prepared, teacher = prepare_for_qat(fuse_bn(network), "per_channel", CALIBRATE), Constant()
        spec = QatSpec(epochs=3, batch_size=4, travel=8.0, distillation=distillation)
        finetune(prepared, teacher, spec, TrainingRun(pack, 0, CPU))
        assert teacher.level.item() == 5.0
        assert teacher.level.grad is None
        means[distillation] = float(reference(prepared, normalize(pack.images("val"))).mean())
    assert means[1.0] > means[0.0] + 0.1, "a teacher that says 50 m pulls the prediction up"


@pytest.mark.parametrize(("weight_range", "mode"), [("minmax", "moving_average"), ("mse", "freeze")])
def test_a_cold_start_follows_activations_and_knows_its_weights(source, weight_range, mode):
    prepared = prepare_for_qat(source, "per_channel", CalibrateSpec(weight_range=weight_range))
    assert {q.mode for q in activation_quantizers(prepared).values() if not q.fixed} == {"moving_average"}
    for conv in quant_convs(prepared).values():
        assert conv.weight_quantizer.mode == mode
        if mode == "freeze":
            continue
        assert torch.equal(conv.weight_quantizer.high, conv.folded()[0].abs().amax((1, 2, 3)))


def test_validation_between_epochs_leaves_no_quantizer_in_another_mode(network, pack):
    prepared = prepare_for_qat(network, "per_channel", CALIBRATE)
    modes: list[set[str]] = []
    spec = QatSpec(epochs=3, batch_size=8, freeze_ranges_after=1.0, freeze_bn_after=1.0)
    run(
        prepared,
        pack,
        network,
        spec,
        progress=lambda info: modes.append({q.mode for q in quantizers(prepared).values()}),
    )
    assert all(seen == {"moving_average", "freeze"} for seen in modes)


def test_quantizers_that_were_frozen_by_hand_train_too(network, pack):
    prepared = prepare(network, "per_tensor")
    freeze_at_unit_ranges_(prepared)
    history, asserted = run(prepared, pack, network, QatSpec(epochs=1, batch_size=8))
    assert [row["epoch"] for row in history] == [0, 1]
    assert asserted["weight_freeze"] == len(quant_convs(prepared))


def test_a_cold_start_watches_the_first_batches_before_it_quantizes(network, pack):
    rows = {}
    for batches in (1, 4):
        prepared = prepare_for_qat(network, "per_channel", CALIBRATE)
        calls = []
        prepared.register_forward_hook(
            lambda module, given, out, calls=calls: calls.append(
                (module.training, {q.mode for q in quantizers(module).values()})
            )
        )
        rows[batches], _ = run(prepared, pack, network, replace(SPEC, epochs=1, observe_batches=batches))
        assert calls[:batches] == [(False, {"calibrate"})] * batches
        assert calls[batches][0], "then it trains"
    assert rows[1][0] != rows[4][0]
    assert rows[4][0]["val_ssim"] > validate(network, pack, CPU)["ssim"] - 0.05, "ranges are known at the start"


def test_batch_statistics_are_never_used_unless_asked_for(network, pack):
    for freeze_bn_after, live in ((0.0, 0), (0.5, 5)):
        prepared = warm(network, pack)
        norms = [conv.bn for conv in quant_convs(prepared).values() if conv.bn is not None]
        before = [(norm.running_mean.clone(), norm.weight.detach().clone()) for norm in norms]
        _, asserted = run(prepared, pack, network, replace(SPEC, epochs=1, freeze_bn_after=freeze_bn_after))
        assert asserted["bn_live"] == (len(norms) if live else 0)
        kept = [torch.equal(norm.running_mean, mean) for norm, (mean, _) in zip(norms, before, strict=True)]
        assert kept == [not live] * len(norms)
        if not live:
            assert not any(torch.equal(norm.weight, weight) for norm, (_, weight) in zip(norms, before, strict=True))


@pytest.mark.parametrize("learned_scales", [False, True])
def test_training_does_not_depend_on_how_channels_are_scaled(network, pack, learned_scales):
    images, spec = normalize(pack.images("test")), replace(SPEC, epochs=2, learned_scales=learned_scales)
    outputs = []
    for factor in (1.0, 64.0, 1 / 64):  # powers of two: the same rounding in floating point
        scaled = fuse_bn(network)
        with torch.no_grad():
            for conv in (scaled.one, scaled.other):
                conv.weight *= factor
                conv.bias *= factor
            scaled.head.weight /= factor
        prepared = warm(scaled, pack)
        start = reference(prepared, images)
        run(prepared, pack, network, spec)
        outputs.append(reference(prepared, images))
        assert (outputs[-1] - start).abs().max() > 1e-2
    assert torch.allclose(outputs[0], outputs[1], atol=1e-5)
    assert torch.allclose(outputs[0], outputs[2], atol=1e-5)


def test_quantizers_that_are_off_on_purpose_stay_off(source, network, pack):
    prepared = warm(source, pack)
    off = ["quantizers.depthwise", "project.weight_quantizer", "quantizers.silu"]
    for name in off:
        quantizers(prepared)[name].set_mode("off")
    modes = []
    spec = replace(SPEC, epochs=1, learned_scales=True)
    _, asserted = run(
        prepared,
        pack,
        network,
        spec,
        kept_float=off,
        progress=lambda _: modes.append({name for name, q in quantizers(prepared).items() if q.mode == "off"}),
    )
    assert modes == [set(off)] * len(modes)
    assert asserted["activation_off"] == 2
    assert {name for name, q in quantizers(prepared).items() if q.mode == "off"} == set(off)
    images = normalize(pack.images("test"))
    assert sqnr_db(reference(prepared, images), reference(qnnpack.convert(prepared), images)) > 20
