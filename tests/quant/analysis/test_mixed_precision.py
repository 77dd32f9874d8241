"""What stays in float is what the ranking names, the int8 network keeps it so, and targets are met by measurement."""

import copy

import pytest
import torch

from model.errors import InputError
from model.noise import sqnr_db
from model.tasks.depth import depth_metrics
from quant.analysis.mixed_precision import keep_float, keep_worst_float
from quant.analysis.site_errors import analyze, rank_sites
from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.prepare import quant_convs, quantizers
from quant.recipe import CalibrateSpec, MixedPrecisionSpec
from quant.state import QuantizerStateError
from tests.quant.networks import frozen_state, reference, same_tensors

MINMAX = CalibrateSpec(activation_range="minmax")


@pytest.fixture(scope="module")
def prepared(all_kinds, images):
    return calibrate(all_kinds, "per_channel", MINMAX, images)


@pytest.fixture(scope="module")
def ranking(prepared, images):
    return rank_sites(prepared, images[:4])


@pytest.fixture(scope="module")
def written(prepared):
    """The network after a step that writes rounded weights and other biases into it, as rounding does."""
    made = copy.deepcopy(prepared)
    with torch.no_grad():
        for conv in quant_convs(made).values():
            source = conv.conv
            source.weight.mul_(1 + 0.02 * torch.randn(source.weight.shape, generator=torch.Generator().manual_seed(0)))
            if source.bias is not None:
                source.bias.add_(0.01)
    return made


def off(network) -> set[str]:
    return {name for name, quantizer in quantizers(network).items() if quantizer.mode == "off"}


def reached(prepared, names, images, original=None) -> float:
    plain = keep_float(prepared, quantizers(prepared), original)
    return sqnr_db(reference(plain, images), reference(keep_float(prepared, names, original), images))


# -- by name


def test_named_sites_are_off_and_no_others_and_the_argument_is_not_touched(prepared):
    tensors, modes = frozen_state(prepared)
    mixed = keep_float(prepared, ["quantizers.silu", "one.weight_quantizer"])
    assert off(mixed) == {"quantizers.silu", "one.weight_quantizer"}
    assert frozen_state(prepared)[1] == modes
    assert same_tensors(frozen_state(prepared)[0], tensors)


def test_a_name_that_no_quantizer_has_is_reported_with_the_nearest(prepared):
    with pytest.raises(InputError, match=r"'quantizers\.sliu' is not a site .* Did you mean quantizers\.silu\?"):
        keep_float(prepared, ["quantizers.sliu"])


def test_every_site_in_float_makes_less_noise_than_none(prepared, ranking, fresh_images):
    whole = reached(prepared, [], fresh_images)
    assert reached(prepared, ranking[:1], fresh_images) > whole
    assert reached(prepared, ranking[:3], fresh_images) > reached(prepared, ranking[-3:], fresh_images)


@pytest.mark.parametrize("seed", range(6))
def test_int8_computes_what_its_simulation_does_whatever_stays_in_float(prepared, fresh_images, seed):
    """A third of the sites, drawn at random."""
    source = prepared
    names = list(quantizers(source))
    drawn = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))[: len(names) // 3]
    mixed = keep_float(source, [names[index] for index in drawn])
    images = fresh_images[:2]
    simulated, shipped = reference(mixed, images), reference(qnnpack.convert(mixed), images)
    assert sqnr_db(simulated, shipped) > reached(source, off(mixed), images) + 3, "nearer than either is to float"


def test_what_stays_in_float_costs_its_weights_in_size(prepared):
    def size(network) -> int:
        return sum(
            value.numel() * value.element_size()
            for value in network.state_dict().values()
            if isinstance(value, torch.Tensor)
        )

    plain, mixed = qnnpack.convert(prepared), qnnpack.convert(keep_float(prepared, ["one.weight_quantizer"]))
    convolution = mixed.get_submodule("one")
    assert {value.dtype for value in convolution.state_dict().values()} == {torch.float32}
    assert size(mixed) - size(plain) > 0


def test_a_weight_that_stays_float_is_the_original_one_with_its_bias(prepared, written, fresh_images):
    names = [name for name, quantizer in quantizers(written).items() if quantizer.weight]
    restored = keep_float(written, names, prepared)
    assert torch.equal(reference(restored, fresh_images), reference(keep_float(prepared, names), fresh_images))
    one = keep_float(written, ["one.weight_quantizer"], prepared)
    for name, conv in quant_convs(one).items():
        assert torch.equal(conv.conv.weight, quant_convs(prepared if name == "one" else written)[name].conv.weight)


# -- by ranking


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_worst_ranked_sites_stay_in_float(prepared, ranking, images, count):
    mixed, chosen = keep_worst_float(prepared, MixedPrecisionSpec(float_sites=count), images[:4])
    assert chosen.names == ranking[:count]
    assert off(mixed) == set(chosen.names)
    assert chosen.sites == len(ranking)
    assert chosen.tried == (count,)
    assert chosen.sqnr_db == pytest.approx(reached(prepared, ranking[:count], images[:4]), abs=0.05)
    assert chosen.metric_loss is None


def test_an_sqnr_target_is_reached_with_as_few_of_the_worst_as_it_takes(prepared, ranking, images):
    whole = reached(prepared, [], images[:4])
    for gain in (-1.0, 2.0, 6.0):
        _, chosen = keep_worst_float(prepared, MixedPrecisionSpec(target_sqnr_db=whole + gain), images[:4])
        assert chosen.names == ranking[: len(chosen.names)]
        assert reached(prepared, chosen.names, images[:4]) >= whole + gain - 0.05
        assert (len(chosen.names) == 0) == (gain < 0)
        if chosen.names:
            assert reached(prepared, chosen.names[:-1], images[:4]) < whole + gain + 0.05
        assert len(chosen.tried) <= 8, "halving, not one by one"


def test_a_target_beyond_reach_ends_with_all_sites_in_float(prepared, images, ranking):
    mixed, chosen = keep_worst_float(prepared, MixedPrecisionSpec(target_sqnr_db=500.0), images[:4])
    assert off(mixed) == set(ranking) == set(chosen.names)
    assert chosen.sqnr_db > 100


def test_a_metric_target_is_measured_against_the_truth(prepared, images):
    plain = keep_float(prepared, quantizers(prepared))
    depth = reference(plain, images[:4])  # as if the float network knew the truth

    def judge(outputs):
        return depth_metrics(outputs, depth)["ssim"]

    best = judge(depth)
    loss = best - judge(reference(prepared, images[:4]))
    assert loss > 0
    _, chosen = keep_worst_float(prepared, MixedPrecisionSpec(max_metric_loss=loss / 3), images[:4], judge)
    mixed = reference(keep_float(prepared, chosen.names), images[:4])
    assert 0 < len(chosen.names) < chosen.sites
    assert best - judge(mixed) <= loss / 3 + 1e-4
    assert chosen.metric_loss == pytest.approx(best - judge(mixed), abs=1e-4)
    _, none = keep_worst_float(prepared, MixedPrecisionSpec(max_metric_loss=2 * loss), images[:4], judge)
    assert none.names == ()


def test_both_targets_hold_together(prepared, images):
    depth = reference(keep_float(prepared, quantizers(prepared)), images[:4])
    whole = reached(prepared, [], images[:4])
    alone = keep_worst_float(prepared, MixedPrecisionSpec(target_sqnr_db=whole + 5), images[:4])[1]
    both = keep_worst_float(
        prepared,
        MixedPrecisionSpec(target_sqnr_db=whole + 5, max_metric_loss=1.0),
        images[:4],
        lambda outputs: depth_metrics(outputs, depth)["ssim"],
    )[1]
    assert alone.names == both.names
    with pytest.raises(ValueError, match="metric to judge"):
        keep_worst_float(prepared, MixedPrecisionSpec(max_metric_loss=0.1), images[:4])


def test_errors_of_written_weights_are_told_against_the_original(prepared, written, images):
    errors = {error.name: error for error in analyze(written, images[:2], original=prepared)}
    plain = reference(keep_float(prepared, quantizers(prepared)), images[:2])
    last = max(errors.values(), key=lambda error: error.order)
    assert last.cumulative_sqnr_db == pytest.approx(sqnr_db(plain, reference(written, images[:2])), abs=0.05)
    name = "one.weight_quantizer"
    others = [other for other in quantizers(written) if other != name]
    alone = reference(keep_float(written, others, prepared), images[:2])
    assert errors[name].isolated_sqnr_db == pytest.approx(sqnr_db(plain, alone), abs=0.05)
    conv, source = quant_convs(written)["one"], quant_convs(prepared)["one"]
    with torch.no_grad():
        expected = sqnr_db(source.folded()[0], conv.weight_quantizer(conv.folded()[0]))
    assert errors[name].site_sqnr_db == pytest.approx(expected, abs=0.02)


def test_the_mixture_of_a_network_with_written_weights_uses_the_original(prepared, written, images):
    plain = reference(keep_float(prepared, quantizers(prepared)), images[:4])
    mixed, chosen = keep_worst_float(written, MixedPrecisionSpec(float_sites=8), images[:4], original=prepared)
    assert chosen.sqnr_db == pytest.approx(sqnr_db(plain, reference(mixed, images[:4])), abs=0.05)
    assert any(name.endswith("weight_quantizer") for name in chosen.names)


# -- what is refused


def test_more_sites_than_there_are_are_refused(prepared, images, ranking):
    with pytest.raises(InputError, match=rf"float_sites: 99 is out of range; expected at most {len(ranking)} sites"):
        keep_worst_float(prepared, MixedPrecisionSpec(float_sites=99), images[:1])


@pytest.mark.parametrize(
    ("wrong", "value"),
    [
        ({"float_sites": -1}, "-1"),
        ({"max_metric_loss": -0.1}, "-0.1"),
        ({"max_metric_loss": 2.0}, "2.0"),
        ({"images": 0}, "0"),
    ],
)
def test_values_that_make_no_sense_are_refused(wrong, value):
    with pytest.raises(InputError, match=rf"mixed_precision\.{next(iter(wrong))}: {value} is out of range"):
        MixedPrecisionSpec(**wrong)


def test_a_network_that_still_follows_the_data_is_refused(prepared, images):
    following = copy.deepcopy(prepared)
    quantizers(following)["quantizers.add"].set_mode("moving_average")
    with pytest.raises(QuantizerStateError, match=r"quantizers\.add is moving_average"):
        keep_worst_float(following, MixedPrecisionSpec(), images)


def test_a_target_is_met_on_the_images_that_are_measured(prepared, images, fresh_images):
    spec = MixedPrecisionSpec(target_sqnr_db=reached(prepared, [], fresh_images) + 3.0)
    mixed, chosen = keep_worst_float(prepared, spec, images, measured_on=fresh_images)
    assert chosen.names == rank_sites(prepared, images)[: len(chosen.names)]
    assert chosen.sqnr_db == pytest.approx(reached(prepared, off(mixed), fresh_images), abs=1e-3)
    assert chosen.sqnr_db >= spec.target_sqnr_db
    assert reached(prepared, chosen.names[:-1], fresh_images) < spec.target_sqnr_db
