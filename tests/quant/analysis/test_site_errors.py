"""The per-layer analysis tells the truth: its figures are those of the networks that it claims to have run."""

import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn

from model.noise import sqnr_db
from quant.analysis.site_errors import analyze, rank_sites, ranked
from quant.analysis.sites import quantizer_sites
from quant.calibrate import calibrate
from quant.prepare import quant_convs, quantizers
from quant.recipe import CalibrateSpec
from quant.state import QuantizerStateError
from quant.tracing.trace import fuse_bn
from tests.quant.networks import frozen_state, reference, same_tensors

MINMAX = CalibrateSpec(activation_range="minmax")
ARMS = [(False, "per_channel"), (True, "per_tensor")]


@pytest.fixture(scope="module")
def prepared_kinds(all_kinds, images):
    made = {}
    for fused, granularity in ARMS:
        made[fused, granularity] = calibrate(fuse_bn(all_kinds) if fused else all_kinds, granularity, MINMAX, images)
    return made


@pytest.fixture(scope="module")
def analyzed(prepared_kinds, fresh_images):
    return {arm: analyze(prepared, fresh_images[:3]) for arm, prepared in prepared_kinds.items()}


def only(prepared, names) -> nn.Module:
    """A copy in which these quantizers are on and all others are off."""
    network = copy.deepcopy(prepared)
    for name, quantizer in quantizers(network).items():
        quantizer.set_mode("freeze" if name in names else "off")
    return network


def cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(one.flatten().double(), other.flatten().double(), 0))


@pytest.mark.parametrize("arm", ARMS, ids=str)
def test_every_quantizer_is_one_site_also_where_values_share_it(prepared_kinds, analyzed, arm):
    names = [error.name for error in analyzed[arm]]
    assert sorted(names) == sorted(quantizers(prepared_kinds[arm]))
    assert {error.kind for error in analyzed[arm]} == {"weight", "activation"}


@pytest.mark.parametrize("arm", ARMS, ids=str)
def test_sites_stand_in_the_order_of_the_run_a_weight_before_the_value_that_it_makes(analyzed, arm):
    place = {error.name: error.order for error in analyzed[arm]}
    assert list(place.values()) == list(range(len(place)))
    run = ["quantizers.x", "stem.weight_quantizer", "quantizers.stem", "quantizers.silu", "depthwise.weight_quantizer"]
    run += ["quantizers.gate_sigmoid", "quantizers.mul", "project.weight_quantizer", "quantizers.add"]
    run += ["other.weight_quantizer", "quantizers.cat", "head.weight_quantizer", "quantizers.head"]
    assert [place[name] for name in run] == sorted(place[name] for name in run)


@pytest.mark.parametrize("arm", ARMS, ids=str)
def test_isolated_errors_are_those_of_the_network_with_this_quantizer_alone(
    prepared_kinds, analyzed, fresh_images, arm
):
    plain = reference(only(prepared_kinds[arm], ()), fresh_images[:3])
    for error in analyzed[arm]:
        rounded = reference(only(prepared_kinds[arm], {error.name}), fresh_images[:3])
        assert error.isolated_sqnr_db == pytest.approx(sqnr_db(plain, rounded), abs=0.02), error.name
        assert error.isolated_cosine == pytest.approx(cosine(plain, rounded), abs=1e-6)


@pytest.mark.parametrize("arm", ARMS, ids=str)
def test_cumulative_errors_are_those_of_the_network_quantized_up_to_there(prepared_kinds, analyzed, fresh_images, arm):
    plain = reference(only(prepared_kinds[arm], ()), fresh_images[:3])
    on: set[str] = set()
    for error in analyzed[arm]:
        on.add(error.name)
        rounded = reference(only(prepared_kinds[arm], on), fresh_images[:3])
        assert error.cumulative_sqnr_db == pytest.approx(sqnr_db(plain, rounded), abs=0.05), error.name
        assert error.cumulative_cosine == pytest.approx(cosine(plain, rounded), abs=1e-5)
    whole = reference(prepared_kinds[arm], fresh_images[:3])
    assert analyzed[arm][-1].cumulative_sqnr_db == pytest.approx(sqnr_db(plain, whole), abs=0.05)


@pytest.mark.parametrize("arm", ARMS, ids=str)
def test_the_error_at_a_weight_and_its_range_are_those_of_the_folded_weight(prepared_kinds, analyzed, arm):
    by_name = {error.name: error for error in analyzed[arm]}
    for name, conv in quant_convs(prepared_kinds[arm]).items():
        error, weight = by_name[f"{name}.weight_quantizer"], conv.folded()[0].detach()
        assert error.site_sqnr_db == pytest.approx(sqnr_db(weight, conv.weight_quantizer(weight)), abs=0.01)
        assert error.low == pytest.approx(weight.amin((1, 2, 3)).tolist())
        assert error.high == pytest.approx(weight.amax((1, 2, 3)).tolist())
        assert len(error.clip_high) == (len(weight) if arm[1] == "per_channel" else 1)
        assert error.clip_high == pytest.approx([-value for value in error.clip_low])
        assert max(error.clip_high) == pytest.approx(float(weight.abs().max()), rel=1e-3)


def test_the_range_of_a_value_is_its_float_range_by_channel_over_all_images(all_kinds, prepared_kinds, fresh_images):
    errors = {error.name: error for error in analyze(prepared_kinds[False, "per_channel"], fresh_images[:3])}
    stem = fuse_bn(all_kinds)
    values = []
    stem.stem.register_forward_hook(lambda module, given, out: values.append(out))
    reference(stem, fresh_images[:3])  # the copy keeps the hook
    seen = values[0]
    error = errors["quantizers.stem"]
    assert error.low == pytest.approx(seen.amin((0, 2, 3)).tolist(), abs=1e-5)
    assert error.high == pytest.approx(seen.amax((0, 2, 3)).tolist(), abs=1e-5)
    quantizer = quantizers(prepared_kinds[False, "per_channel"])["quantizers.stem"]
    assert error.clip_low == pytest.approx([-float(quantizer.zero_point) * float(quantizer.scale)], rel=1e-6)
    assert error.clip_high[0] - error.clip_low[0] == pytest.approx(255 * float(quantizer.scale), rel=1e-5)


def test_the_spread_is_the_widest_channel_over_the_median_one(prepared_kinds, fresh_images):
    for error in analyze(prepared_kinds[True, "per_tensor"], fresh_images[:1]):
        widths = torch.maximum(torch.tensor(error.low).abs(), torch.tensor(error.high).abs())
        assert error.spread == pytest.approx(float(widths.max() / widths[widths > 0].median()), rel=1e-5)
        assert error.spread >= 1


def test_dead_channels_take_no_part_in_the_spread(prepared_kinds, fresh_images):
    error = analyze(prepared_kinds[True, "per_tensor"], fresh_images[:1])[0]
    dead = (0.0,) * 9
    assert dataclasses.replace(error, low=(-1.0, -2.0, 0.0, *dead), high=(3.0, 1.0, 6.0, *dead)).spread == 2
    assert dataclasses.replace(error, low=dead, high=dead).spread == 1


def test_shares_of_the_noise_add_up_and_follow_the_ranking(analyzed):
    for errors in analyzed.values():
        assert sum(error.noise_share for error in errors) == pytest.approx(1.0)
        worst_first = ranked(errors)
        assert [e.isolated_sqnr_db for e in worst_first] == sorted(e.isolated_sqnr_db for e in errors)
        assert [e.noise_share for e in worst_first] == sorted((e.noise_share for e in errors), reverse=True)


def test_a_site_that_is_made_coarse_becomes_the_worst(prepared_kinds, fresh_images):
    for name in ("project.weight_quantizer", "quantizers.silu"):
        coarse = copy.deepcopy(prepared_kinds[False, "per_channel"])
        with torch.no_grad():
            quantizers(coarse)[name].scale.mul_(16)
        assert rank_sites(coarse, fresh_images[:2])[0] == name


def test_the_ranking_alone_is_that_of_the_whole_analysis(prepared_kinds, analyzed, fresh_images):
    for arm, prepared in prepared_kinds.items():
        assert list(rank_sites(prepared, fresh_images[:3])) == [error.name for error in ranked(analyzed[arm])]


def test_the_batch_size_changes_nothing(prepared_kinds, analyzed, fresh_images):
    arm = (False, "per_channel")
    together = analyze(prepared_kinds[arm], fresh_images[:3], batch_size=3)
    for one, other in zip(analyzed[arm], together, strict=True):
        assert one.isolated_sqnr_db == pytest.approx(other.isolated_sqnr_db, abs=0.1)
        assert one.low == pytest.approx(other.low, abs=1e-5)


def test_a_quantizer_that_is_off_is_no_site_and_stays_off(prepared_kinds, fresh_images):
    mixed = copy.deepcopy(prepared_kinds[False, "per_channel"])
    quantizers(mixed)["quantizers.silu"].set_mode("off")
    errors = analyze(mixed, fresh_images[:1])
    assert "quantizers.silu" not in {error.name for error in errors}
    assert len(errors) == len(quantizers(mixed)) - 1
    plain = reference(only(mixed, ()), fresh_images[:1])
    assert errors[-1].cumulative_sqnr_db == pytest.approx(sqnr_db(plain, reference(mixed, fresh_images[:1])), abs=0.05)


def test_the_network_that_is_analyzed_is_not_touched(prepared_kinds, fresh_images):
    prepared = prepared_kinds[False, "per_channel"]
    tensors, modes = frozen_state(prepared)
    analyze(prepared, fresh_images[:1])
    after, modes_after = frozen_state(prepared)
    assert same_tensors(tensors, after)
    assert modes == modes_after


def test_progress_counts_to_the_end(prepared_kinds, fresh_images):
    reports: list[dict[str, float]] = []
    analyze(prepared_kinds[True, "per_tensor"], fresh_images[:2], reports.append)
    steps = [info["step"] for info in reports]
    assert steps == sorted(steps)
    assert reports[-1]["step"] == reports[-1]["steps"] == 2 * len(quantizers(prepared_kinds[True, "per_tensor"]))


class InPlace(nn.Module):
    """Operators that overwrite what they read."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.silu = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.silu(self.one(x))
        y = self.two(x)
        y += x
        y = torch.nn.functional.relu(y, inplace=True)
        y *= x
        return y


def test_operators_that_work_in_place_do_not_disturb_the_values_that_are_kept(images, fresh_images):
    torch.manual_seed(0)
    prepared = calibrate(InPlace().eval(), "per_channel", MINMAX, images)
    plain = reference(only(prepared, ()), fresh_images[:2])
    for error in analyze(prepared, fresh_images[:2], batch_size=2):
        rounded = reference(only(prepared, {error.name}), fresh_images[:2])
        assert error.isolated_sqnr_db == pytest.approx(sqnr_db(plain, rounded), abs=0.02), error.name


def test_each_quantizer_of_the_real_network_is_one_site_also_those_that_resizing_shares(calibrated):
    prepared = calibrated[False, "per_channel"]
    calls = [node for node in prepared.graph.nodes if str(node.target).startswith("quantizers.")]
    sites = quantizer_sites(prepared)
    assert len(sites) == len(quantizers(prepared)) < len(calls) + len(quant_convs(prepared))
    order = {node: number for number, node in enumerate(prepared.graph.nodes)}
    assert [order[site.node] for site in sites] == sorted(order[site.node] for site in sites)
    last = next(node for node in prepared.graph.nodes if node.op == "output")
    assert all(last in site.reaches for site in sites)


def test_what_cannot_be_analyzed_is_refused(prepared_kinds, fresh_images):
    with pytest.raises(ValueError, match="at least one image"):
        analyze(prepared_kinds[False, "per_channel"], fresh_images[:0])
    following = copy.deepcopy(prepared_kinds[False, "per_channel"])
    quantizers(following)["quantizers.add"].set_mode("moving_average")
    with pytest.raises(QuantizerStateError, match=r"quantizers\.add is moving_average"):
        analyze(following, fresh_images)
