"""Activations of 16 bits at the worst sites: which get them, what they give, and how the int8 network rounds them."""

import pytest
import torch

from model.errors import InputError
from model.network.spec import NetworkSpec
from quant.analysis.mixed_precision import keep_float, keep_worst_float, widen_activations
from quant.analysis.site_errors import rank_sites
from quant.artifact import Form, load_network, load_prepared, save_network
from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.engines.decomposed import QUANTIZE, decompose
from quant.prepare import quantizers
from quant.recipe import CalibrateSpec, MixedPrecisionSpec
from tests.quant.networks import noise, reference

MINMAX = CalibrateSpec(activation_range="minmax")
SPEC = MixedPrecisionSpec(float_sites=3, activation_bits=16)


@pytest.fixture(scope="module")
def prepared(all_kinds, images):
    return calibrate(all_kinds, "per_channel", MINMAX, images)


def wide_sites(network) -> dict[str, int]:
    return {name: quantizer.bits for name, quantizer in quantizers(network).items() if quantizer.bits != 8}


def test_the_worst_activations_get_sixteen_bits_and_no_weights(prepared, images):
    mixed, chosen = keep_worst_float(prepared, SPEC, images)
    named = quantizers(prepared)
    worst = [name for name in rank_sites(prepared, images) if not named[name].weight][:3]
    assert list(chosen.names) == worst
    assert wide_sites(mixed) == dict.fromkeys(worst, 16)
    assert not wide_sites(prepared)
    assert {quantizers(mixed)[name].quant_max for name in worst} == {65535}
    assert {quantizer.mode for quantizer in quantizers(mixed).values()} == {"freeze"}


def test_sixteen_bits_are_nearly_as_good_as_float_where_ranges_had_clipped(all_kinds, images):
    prepared = calibrate(all_kinds, "per_channel", CalibrateSpec(), images)  # ranges that clip
    activations = [name for name, quantizer in quantizers(prepared).items() if not quantizer.weight]
    mixed = widen_activations(prepared, activations, 16, images)
    exact, narrow = reference(keep_float(prepared, activations), images), reference(prepared, images)
    assert noise(reference(mixed, images), exact) < 0.02 * noise(narrow, exact)


def test_a_target_counts_activations_of_sixteen_bits(prepared, images):
    target = keep_worst_float(prepared, SPEC, images)[1].sqnr_db
    spec = MixedPrecisionSpec(target_sqnr_db=target, activation_bits=16)
    _, chosen = keep_worst_float(prepared, spec, images)
    assert len(chosen.names) <= 3
    assert chosen.sqnr_db >= target


@pytest.mark.parametrize("bits", [8, 17])
def test_other_widths_are_refused(bits):
    with pytest.raises(InputError, match=r"mixed_precision\.activation_bits"):
        MixedPrecisionSpec(activation_bits=bits)


def test_the_int8_network_rounds_these_sites_in_float_and_computes_what_the_simulation_says(prepared, images):
    mixed, chosen = keep_worst_float(prepared, SPEC, images)
    converted = qnnpack.convert(mixed)
    found = [module for module in converted.modules() if isinstance(module, qnnpack.SimulatedRounding)]
    assert len(found) >= len(chosen.names), "once more where a shared quantizer rounds again"
    exact, simulated = reference(keep_float(mixed, quantizers(mixed)), images), reference(mixed, images)
    assert noise(converted(images), simulated) < 0.2 * noise(simulated, exact)
    assert qnnpack.graph_hash(converted) != qnnpack.graph_hash(qnnpack.convert(prepared))


def test_an_exported_network_rounds_these_sites_in_float_too(prepared, images):
    mixed, chosen = keep_worst_float(prepared, SPEC, images)
    plain, network = decompose(prepared, signed=False), decompose(mixed, signed=False)
    rounded = [sum(node.target is QUANTIZE for node in one.graph.nodes) for one in (plain, network)]
    assert rounded[0] - rounded[1] >= len(chosen.names)
    exact, simulated = reference(keep_float(mixed, quantizers(mixed)), images), reference(mixed, images)
    assert noise(network(images).detach(), simulated) < 0.2 * noise(simulated, exact)


def test_sites_of_sixteen_bits_come_back_from_disk(calibrated, images, fresh_images, tmp_path):
    mixed, _ = keep_worst_float(calibrated[True, "per_tensor"], SPEC, images[:2])
    int8 = qnnpack.convert(mixed)
    for form, network in (("prepared", mixed), ("int8", int8)):
        (tmp_path / form).mkdir()
        made = Form(NetworkSpec(input_size=64), True, form, False, "per_tensor", "qnnpack" if form == "int8" else None)
        save_network(tmp_path / form, network, made)
    assert wide_sites(load_prepared(tmp_path / "prepared")) == wide_sites(mixed)
    assert torch.equal(reference(load_prepared(tmp_path / "prepared"), fresh_images), reference(mixed, fresh_images))
    assert torch.equal(reference(load_network(tmp_path / "int8"), fresh_images), reference(int8, fresh_images))
