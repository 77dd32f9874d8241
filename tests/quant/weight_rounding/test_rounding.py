"""What rounding by OPTQ promises: weights on their grids, smaller errors than nearest rounding, no other change."""

import copy

import pytest
import torch
from torch import Tensor, fx, nn

from model.errors import InputError
from model.noise import sqnr_db
from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.prepare import quant_convs, quantizers
from quant.recipe import GRANULARITIES, CalibrateSpec, RoundingSpec
from quant.state import QuantizerStateError, require_state
from quant.tracing.trace import fuse_bn
from quant.weight_rounding.rounding import round_weights_optq
from tests.quant.networks import (
    AllKinds,
    ReluPair,
    activation_quantizers,
    frozen_state,
    reference,
    same_tensors,
    settled,
    smooth_images,
)

SPEC = RoundingSpec(places=2048)
CASES = [(fused, granularity) for fused in (False, True) for granularity in GRANULARITIES]


class Thirds(nn.Module):
    """Two pointwise convolutions; the first has a small weight beside a large one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 1, 1)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([[127.0, 0.0, 0.0], [0.0, 0.0, 0.6]]).reshape(2, 3, 1, 1) / 127)
            self.first.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


def off_(prepared: nn.Module) -> nn.Module:
    """Pass by all activation quantizers, so that only weights are rounded."""
    for quantizer in activation_quantizers(prepared).values():
        quantizer.set_mode("off")
    return prepared


@pytest.fixture(scope="module")
def prepared(all_kinds, images):
    """The network of all operators calibrated, by (fused, granularity)."""
    return {
        (fused, granularity): calibrate(
            fuse_bn(all_kinds) if fused else all_kinds, granularity, CalibrateSpec(), images
        )
        for fused, granularity in CASES
    }


@pytest.fixture(scope="module")
def by_optq(prepared, images):
    return {case: round_weights_optq(network, SPEC, images, seed=0) for case, network in prepared.items()}


def integers(network: fx.GraphModule) -> dict[str, Tensor]:
    return {name: conv.weight_quantizer.quantize(conv.folded()[0]) for name, conv in quant_convs(network).items()}


@pytest.mark.parametrize("case", CASES)
def test_fake_quantization_changes_no_weight_any_more(by_optq, case):
    for name, conv in quant_convs(by_optq[case][0]).items():
        weight, _ = conv.folded()
        assert torch.allclose(conv.weight_quantizer(weight), weight, rtol=1e-6, atol=0), name


@pytest.mark.parametrize("case", CASES)
def test_only_weights_and_biases_change_and_only_in_the_copy(prepared, images, case):
    before = frozen_state(prepared[case])
    network, _, _ = round_weights_optq(prepared[case], SPEC, images, seed=0)
    tensors, modes = frozen_state(prepared[case])
    assert same_tensors(tensors, before[0])
    assert modes == before[1]
    after, modes = frozen_state(network)
    assert modes == before[1]
    changed = {name for name in after if not torch.equal(after[name], tensors[name])}
    assert changed
    assert all(name.endswith((".weight", ".bias")) for name in changed)
    require_state(network, "evaluate")


def test_the_seed_alone_decides(prepared, images):
    spec = RoundingSpec(places=50)  # so few that another draw gives another rounding
    case = (True, "per_channel")
    one, same, other = (integers(round_weights_optq(prepared[case], spec, images, seed=seed)[0]) for seed in (3, 3, 4))
    assert same_tensors(one, same)
    assert not same_tensors(one, other)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_live_and_folded_batchnorm_are_rounded_to_the_same_network(by_optq, fresh_images, granularity):
    live, folded = (by_optq[fused, granularity][0] for fused in (False, True))
    shares = [
        (one != two).float().mean() for one, two in zip(*(integers(n).values() for n in (live, folded)), strict=True)
    ]
    assert sum(shares) / len(shares) < 0.02  # ties
    assert sqnr_db(reference(live, fresh_images), reference(folded, fresh_images)) > 40


@pytest.mark.parametrize("case", CASES)
def test_each_layer_comes_closer_to_the_float_network_than_by_nearest_rounding(by_optq, case):
    layers = by_optq[case][1]
    assert [layer.name for layer in layers] == list(quant_convs(by_optq[case][0]))
    assert all(layer.error_after < layer.error_before for layer in layers)
    assert all(0.0 <= layer.flipped <= 1.0 for layer in layers)
    assert sum(layer.flipped > 0 for layer in layers) >= 5


@pytest.mark.parametrize("network", [ReluPair, AllKinds])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_rounding_noise_falls_by_far_on_images_that_rounding_did_not_see(images, fresh_images, network, granularity):
    torch.manual_seed(0)
    network = settled(network(), images)
    rounded = off_(calibrate(network, granularity, CalibrateSpec(), images))
    by_optq, _, _ = round_weights_optq(rounded, SPEC, images, seed=0)
    exact = reference(network, fresh_images)
    before, after = (sqnr_db(exact, reference(one, fresh_images)) for one in (rounded, by_optq))
    assert after > before + (3.0 if granularity == "per_tensor" else 1.0)


def test_a_layer_makes_up_for_what_the_layers_before_it_lost(images):
    """The first layer can only round its 0.6 steps to one step; the second takes the 0.6 over."""
    torch.manual_seed(0)
    network = Thirds().eval()
    prepared = off_(calibrate(network, "per_tensor", CalibrateSpec(), images))
    weight = quant_convs(prepared)["second"]
    weight.weight_quantizer.set_range(torch.tensor([-2.0]), torch.tensor([2.0]))  # room for any weight
    by_optq, layers, _ = round_weights_optq(prepared, RoundingSpec(places=2048, damping=0.01), images, seed=0)
    first, second = (conv.folded()[0].detach().flatten(1) for conv in quant_convs(by_optq).values())
    assert first[1, 2] == pytest.approx(1 / 127)
    assert second[0, 1] == pytest.approx(0.6 * float(network.second.weight[0, 1].detach()), abs=0.02)
    assert layers[1].error_after < 0.2 * layers[1].error_before


def test_the_bias_keeps_the_mean_of_every_output(images):
    torch.manual_seed(0)
    network = fuse_bn(settled(ReluPair(), images))
    prepared = off_(calibrate(network, "per_tensor", CalibrateSpec(), images))
    by_optq, _, _ = round_weights_optq(prepared, RoundingSpec(places=10**6), images, seed=0)
    means = [reference(one, images).mean((0, 2, 3)) for one in (network, prepared, by_optq)]
    errors = [(mean - means[0]).abs().max() for mean in means[1:]]
    assert errors[1] < 1e-5 < 1e-3 < errors[0]


def test_a_convolution_without_a_bias_gets_one_that_keeps_the_mean(images):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False)).eval()
    bright = images + 5.0
    prepared = off_(calibrate(network, "per_tensor", CalibrateSpec(), bright))
    by_optq, _, _ = round_weights_optq(prepared, RoundingSpec(places=10**6), bright, seed=0)
    means = [reference(one, bright).mean((0, 2, 3)) for one in (network, prepared, by_optq)]
    assert (means[2] - means[0]).abs().max() < 1e-4 < 1e-3 < (means[1] - means[0]).abs().max()


def test_a_convolution_that_stays_float_is_left_as_it_is(prepared, images):
    network = copy.deepcopy(prepared[True, "per_channel"])
    quant_convs(network)["project"].weight_quantizer.set_mode("off")
    by_optq, layers, _ = round_weights_optq(network, SPEC, images, seed=0)
    assert "project" not in {layer.name for layer in layers}
    before, after = (quant_convs(one)["project"].conv for one in (network, by_optq))
    assert torch.equal(before.weight, after.weight)
    assert torch.equal(before.bias, after.bias)


@pytest.mark.parametrize("content", [0.0, 1.0])
@pytest.mark.parametrize("case", CASES)
def test_inputs_that_say_nothing_leave_finite_weights(all_kinds, content, case):
    fused, granularity = case
    plain = torch.full((4, 3, 64, 64), content)
    network = calibrate(fuse_bn(all_kinds) if fused else all_kinds, granularity, CalibrateSpec(), plain)
    by_optq, _, _ = round_weights_optq(network, SPEC, plain, seed=0)
    assert torch.isfinite(reference(by_optq, smooth_images(2, 64))).all()


def test_no_more_images_are_read_than_it_is_told(prepared, images):
    reached = []

    class Watched:
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, where: slice) -> Tensor:
            reached.append(where.stop)
            return images[where]

    case = (True, "per_tensor")
    watched, _, _ = round_weights_optq(prepared[case], RoundingSpec(images=3), Watched(), seed=0)
    assert max(reached) == 3
    few, _, _ = round_weights_optq(prepared[case], RoundingSpec(), images[:3], seed=0)
    assert same_tensors(integers(watched), integers(few))


def test_quantizers_that_are_not_frozen_are_refused(prepared, images):
    network = copy.deepcopy(prepared[True, "per_channel"])
    next(iter(quantizers(network).values())).set_mode("moving_average")
    with pytest.raises(QuantizerStateError, match="moving_average"):
        round_weights_optq(network, SPEC, images, seed=0)


@pytest.mark.parametrize("case", CASES)
def test_the_int8_network_has_the_chosen_integers(by_optq, fresh_images, case):
    network = by_optq[case][0]
    int8 = qnnpack.convert(network)
    for name, expected in integers(network).items():
        assert torch.equal(int8.get_submodule(name).weight().int_repr().int(), expected), name
    assert sqnr_db(reference(network, fresh_images), int8(fresh_images)) > 35


def test_progress_ends_at_its_last_step(prepared, images):
    reports: list[dict[str, float]] = []
    round_weights_optq(
        prepared[True, "per_tensor"], RoundingSpec(images=1, places=10), images, seed=0, progress=reports.append
    )
    assert [info["step"] for info in reports] == list(range(1, len(reports) + 1))
    assert reports[-1]["step"] == reports[-1]["steps"]


@pytest.mark.parametrize("field", ["images", "places", "damping"])
def test_a_setting_that_cannot_work_is_refused(field):
    with pytest.raises(InputError, match=f"rounding.{field}"):
        RoundingSpec(**{field: 0})
