"""What calibration sets, from what, and what it leaves alone."""

import pytest
import torch
from torch import fx

from model.noise import sqnr_db
from quant.calibrate import calibrate, set_weight_ranges_
from quant.graph import module_of
from quant.prepare import prepare, quant_convs, quantizers
from quant.recipe import ACTIVATION_RANGES, GRANULARITIES, WEIGHT_RANGES, CalibrateSpec
from quant.state import quantizer_state
from quant.tracing.trace import fuse_bn, trace
from tests.quant.networks import AllKinds, activation_quantizers, reference, settled, weight_quantizers

MINMAX = CalibrateSpec(activation_range="minmax")


def test_activation_ranges_do_not_depend_on_the_granularity_of_weights(calibrated):
    for fused in (False, True):
        one, other = (activation_quantizers(calibrated[fused, granularity]) for granularity in GRANULARITIES)
        assert one.keys() == other.keys()
        for name, quantizer in one.items():
            for value in ("scale", "zero_point", "low", "high"):
                assert torch.equal(getattr(quantizer, value), getattr(other[name], value)), name


@pytest.mark.parametrize("activation_range", ACTIVATION_RANGES)
def test_activation_ranges_do_not_depend_on_weights_being_rounded(all_kinds, images, activation_range):
    """In every arm and with every weight range the float function is what is observed."""
    states = []
    for granularity in GRANULARITIES:
        for weight_range in WEIGHT_RANGES:
            spec = CalibrateSpec(activation_range=activation_range, weight_range=weight_range)
            calibrated = activation_quantizers(calibrate(all_kinds, granularity, spec, images))
            states.append({name: (float(q.scale), int(q.zero_point)) for name, q in calibrated.items()})
    assert all(state == states[0] for state in states)


def test_live_and_folded_batchnorm_calibrate_to_the_same_quantizers(calibrated):
    for granularity in GRANULARITIES:
        live, folded = (quantizers(calibrated[fused, granularity]) for fused in (False, True))
        assert live.keys() == folded.keys()
        assert all(torch.equal(q.scale, folded[name].scale) for name, q in live.items())


def test_afterwards_everything_is_frozen_and_in_eval_mode(all_kinds, images):
    prepared = calibrate(all_kinds, "per_channel", MINMAX, images)
    assert {quantizer.mode for quantizer in quantizers(prepared).values()} == {"freeze"}
    assert not any(module.training for module in prepared.modules())
    assert all(quantizer.observer is None for quantizer in quantizers(prepared).values())
    before = {name: value.clone() for name, value in prepared.state_dict().items()}
    reference(prepared, 10 * images)
    assert all(torch.equal(value, before[name]) for name, value in prepared.state_dict().items())


def test_a_network_in_train_mode_is_calibrated_with_dropout_and_batch_statistics_off(images):
    torch.manual_seed(0)
    network = settled(AllKinds(), images)
    expected = calibrate(network, "per_channel", MINMAX, images)
    calibrated = calibrate(network.train(), "per_channel", MINMAX, images)
    assert network.training, "the argument keeps its mode"
    scales = quantizers(expected)
    assert all(torch.equal(q.scale, scales[name].scale) for name, q in quantizers(calibrated).items())


def test_minmax_ranges_are_the_extremes_of_the_float_function(all_kinds, images):
    """Each quantizer's range against the values that the float network has at that place."""
    seen: dict[fx.Node, torch.Tensor] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n):
            seen[n.name] = value = super().run_node(n)
            return value

    float_network = trace(fuse_bn(all_kinds))
    with torch.no_grad():
        Recorder(float_network).run(images)
    prepared = calibrate(fuse_bn(all_kinds), "per_channel", MINMAX, images)
    ranges = activation_quantizers(prepared)
    last = {"depthwise": "relu6", "one": "relu_1", "other": "relu", "head": "head", "stem": "stem", "add": "add"}
    last |= {"x": "x", "silu": "silu", "cat": "cat"}
    names = {node.name for node in float_network.graph.nodes}
    assert set(last.values()) <= names, names
    for quantizer_name, node_name in last.items():
        quantizer, value = ranges[f"quantizers.{quantizer_name}"], seen[node_name]
        shared = [seen["pad"]] if quantizer_name == "x" else [seen["pool"]] if quantizer_name == "add" else []
        low = min(0.0, *(float(item.min()) for item in (value, *shared)))
        high = max(0.0, *(float(item.max()) for item in (value, *shared)))
        assert float(quantizer.low) == pytest.approx(low, abs=1e-5), quantizer_name
        assert float(quantizer.high) == pytest.approx(high, abs=1e-5), quantizer_name


@pytest.mark.parametrize("activation_range", ACTIVATION_RANGES)
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_the_simulation_stays_close_to_the_float_network(
    all_kinds, images, fresh_images, activation_range, granularity
):
    prepared = calibrate(all_kinds, granularity, CalibrateSpec(activation_range=activation_range), images)
    noise = sqnr_db(reference(all_kinds, fresh_images), reference(prepared, fresh_images))
    assert 15 < noise < 60


def test_per_channel_weights_are_closer_than_per_tensor_where_channels_differ(images, fresh_images):
    torch.manual_seed(0)
    network = settled(AllKinds(), images)
    with torch.no_grad():
        network.depthwise_bn.weight *= torch.logspace(-1.5, 0.5, 8)
    noise = {}
    for granularity in GRANULARITIES:
        prepared = calibrate(network, granularity, MINMAX, images)
        for quantizer in activation_quantizers(prepared).values():
            quantizer.set_mode("off")
        noise[granularity] = sqnr_db(reference(network, fresh_images), reference(prepared, fresh_images))
    assert noise["per_channel"] > noise["per_tensor"] + 3


def test_the_batch_size_does_not_change_minmax_ranges(all_kinds, images):
    one, other = (
        quantizers(
            calibrate(all_kinds, "per_tensor", CalibrateSpec(batch_size=size, activation_range="minmax"), images)
        )
        for size in (3, 12)
    )
    assert all(torch.allclose(q.scale, other[name].scale, rtol=1e-5) for name, q in one.items())


def test_every_image_is_used(all_kinds, images):
    """The last, smaller batch counts too."""
    spec = CalibrateSpec(batch_size=5, activation_range="minmax")
    loud = torch.cat([images[:10], 20 * images[10:]])
    quantizer = activation_quantizers(calibrate(all_kinds, "per_tensor", spec, loud))["quantizers.x"]
    assert float(quantizer.high) == float(loud.max())


def test_progress_counts_images(relu_pair, images):
    seen = []
    calibrate(relu_pair, "per_channel", CalibrateSpec(batch_size=5), images, seen.append)
    assert seen == [{"step": step, "steps": 12} for step in (5, 10, 12)]


def test_images_that_are_read_slice_by_slice_give_what_a_tensor_gives(relu_pair, images):
    class Lazy:
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, where: slice) -> torch.Tensor:
            assert where.stop - where.start <= MINMAX.batch_size
            return images[where].clone()

    one, other = (quantizers(calibrate(relu_pair, "per_channel", MINMAX, source)) for source in (images, Lazy()))
    assert all(torch.equal(q.scale, other[name].scale) for name, q in one.items())


@pytest.mark.parametrize("weight_range", WEIGHT_RANGES)
def test_weight_ranges_are_those_of_the_folded_weight(relu_pair, weight_range):
    prepared = prepare(relu_pair, "per_channel")
    set_weight_ranges_(prepared, weight_range)
    for conv in quant_convs(prepared).values():
        largest = conv.folded()[0].abs().amax((1, 2, 3))
        high = conv.weight_quantizer.high
        assert torch.equal(high, largest) if weight_range == "minmax" else (high <= largest).all()
    assert all(quantizer.mode == "off" for quantizer in weight_quantizers(prepared).values())


@pytest.mark.parametrize("activation_range", ACTIVATION_RANGES)
@pytest.mark.parametrize("where", [0, 11])
def test_images_with_nan_stop_the_calibration(relu_pair, images, activation_range, where):
    broken = images.clone()
    broken[where, 0, 3, 3] = float("nan")
    with pytest.raises((ArithmeticError, RuntimeError, ValueError)):
        calibrate(relu_pair, "per_channel", CalibrateSpec(activation_range=activation_range), broken)


def test_no_images_at_all_is_an_error(relu_pair, images):
    for activation_range in ACTIVATION_RANGES:
        with pytest.raises((ValueError, ArithmeticError)):
            calibrate(relu_pair, "per_channel", CalibrateSpec(activation_range=activation_range), images[:0])


def test_fixed_and_limited_quantizers_keep_their_rules(all_kinds, images):
    prepared = calibrate(all_kinds, "per_channel", MINMAX, 10 * images)
    named = quantizers(prepared)
    assert float(named["quantizers.gate_sigmoid"].scale) == 1 / 256
    assert float(named["quantizers.depthwise"].high) == 6.0


def test_the_state_is_counted_for_the_record(all_kinds, images):
    prepared = calibrate(all_kinds, "per_channel", MINMAX, images)
    state = quantizer_state(prepared)
    assert state["weight_freeze"] == len(quant_convs(prepared))
    assert state["activation_freeze"] == len(activation_quantizers(prepared))
    assert not state["training"]
    assert state["bn_live"] == 0
    assert all(module_of(prepared, node) is not None for node in prepared.graph.nodes if node.op == "call_module")
