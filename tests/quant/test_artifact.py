"""Networks on disk come back as they were, and nothing else is taken for one."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.errors import InputError
from model.network.build import build_network
from model.network.spec import NetworkSpec
from model.network.user_network import register_network
from quant.analysis.weight_widths import choose_widths
from quant.artifact import Form, load_network, load_prepared, read_form, save_network, size_mb
from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.engines.catalog import TORCH
from quant.equalization.equalize import equalize
from quant.prepare import quant_convs, quantizers
from quant.qat.finetune import prepare_for_qat
from quant.recipe import CalibrateSpec, EqualizeSpec
from quant.state import require_state
from quant.tracing.trace import fuse_bn, trace
from tests.quant.networks import reference, same_tensors

SPEC = NetworkSpec(input_size=64)
MINMAX = CalibrateSpec(activation_range="minmax")
SKIPPED = ("none", "qnnpack")
ENGINES = [engine for engine in TORCH if engine in torch.backends.quantized.supported_engines]
ARMS = [(False, "per_channel"), (True, "per_tensor")]


@pytest.fixture
def saved(tmp_path, depth_network):
    """A folder with the float network."""
    save_network(tmp_path, depth_network, Form(SPEC, fused=False, form="float"))
    return tmp_path


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("equalized", [False, True])
def test_a_float_network_comes_back_bit_for_bit(depth_network, images, fresh_images, tmp_path, fused, equalized):
    network = fuse_bn(depth_network) if fused else depth_network
    if equalized:
        network = equalize(network, EqualizeSpec("weights"), images, "per_channel")
    form = Form(SPEC, fused=fused, form="float", scaled_silu=equalized)
    save_network(tmp_path, network, form)
    loaded = load_network(tmp_path)
    assert read_form(tmp_path) == form
    assert not loaded.training
    assert same_tensors(loaded.state_dict(), network.state_dict())
    assert torch.equal(reference(loaded, fresh_images), reference(network, fresh_images))


@pytest.mark.parametrize("arm", ARMS)
def test_a_prepared_network_comes_back_bit_for_bit_with_its_modes(calibrated, fresh_images, tmp_path, arm):
    form = Form(SPEC, arm[0], "prepared", False, arm[1])
    save_network(tmp_path, calibrated[arm], form)
    loaded = load_network(tmp_path)
    assert read_form(tmp_path) == form
    assert require_state(loaded, "evaluate") == require_state(calibrated[arm], "evaluate")
    assert same_tensors(loaded.state_dict(), calibrated[arm].state_dict())
    assert torch.equal(reference(loaded, fresh_images), reference(calibrated[arm], fresh_images))


def test_modes_come_back_one_by_one(depth_network, tmp_path):
    prepared = prepare_for_qat(depth_network, "per_channel", MINMAX)
    quantizers(prepared)["quantizers.images"].set_mode("off")
    save_network(tmp_path, prepared, Form(SPEC, False, "prepared", False, "per_channel"))
    modes = {name: quantizer.mode for name, quantizer in quantizers(load_network(tmp_path)).items()}
    assert modes == {name: quantizer.mode for name, quantizer in quantizers(prepared).items()}
    assert set(modes.values()) == {"off", "moving_average", "freeze"}
    description = tmp_path / "network.json"
    description.write_text(description.read_text().replace('"moving_average"', '"follow"'))
    former = {name: quantizer.mode for name, quantizer in quantizers(load_network(tmp_path)).items()}
    assert former == modes, "files in which the mode has its former name"


def test_only_a_prepared_network_is_loaded_as_one(calibrated, depth_network, fresh_images, tmp_path):
    for name in ("prepared", "float"):
        (tmp_path / name).mkdir()
    save_network(tmp_path / "prepared", calibrated[ARMS[0]], Form(SPEC, ARMS[0][0], "prepared", False, ARMS[0][1]))
    save_network(tmp_path / "float", depth_network, Form(SPEC, False, "float"))
    loaded = load_prepared(tmp_path / "prepared")
    assert torch.equal(reference(loaded, fresh_images), reference(calibrated[ARMS[0]], fresh_images))
    with pytest.raises(InputError, match="form='float' is not a prepared network"):
        load_prepared(tmp_path / "float")


@pytest.mark.parametrize("arm", ARMS)
def test_an_int8_network_comes_back_bit_for_bit_and_selects_its_engine(int8, fresh_images, tmp_path, arm):
    form = Form(SPEC, arm[0], "int8", False, arm[1], "qnnpack")
    save_network(tmp_path, int8[arm], form)
    torch.backends.quantized.engine = next(e for e in torch.backends.quantized.supported_engines if e not in SKIPPED)
    loaded = load_network(tmp_path)
    assert torch.backends.quantized.engine == "qnnpack"
    assert read_form(tmp_path) == form
    assert torch.equal(reference(loaded, fresh_images), reference(int8[arm], fresh_images))
    assert qnnpack.graph_hash(loaded) == qnnpack.graph_hash(int8[arm])


def test_an_int8_network_of_mixed_precision_comes_back_too(depth_network, images, fresh_images, tmp_path):
    prepared = calibrate(depth_network, "per_channel", MINMAX, images)
    quant_convs(prepared)["head.layers.1"].weight_quantizer.set_mode("off")
    quantizers(prepared)["quantizers.encoder_layer0_0_0"].set_mode("off")
    mixed = qnnpack.convert(prepared)
    save_network(tmp_path, mixed, Form(SPEC, False, "int8", False, "per_channel", "qnnpack"))
    assert torch.equal(reference(load_network(tmp_path), fresh_images), reference(mixed, fresh_images))


def test_saving_changes_nothing(calibrated, tmp_path):
    before = {name: value.clone() for name, value in calibrated[False, "per_channel"].state_dict().items()}
    save_network(tmp_path, calibrated[False, "per_channel"], Form(SPEC, False, "prepared", False, "per_channel"))
    assert same_tensors(before, calibrated[False, "per_channel"].state_dict())


def test_the_size_is_that_of_the_saved_state_dict_and_leaves_no_file(depth_network, tmp_path):
    size = size_mb(depth_network, tmp_path)
    assert not list(tmp_path.iterdir())
    torch.save(depth_network.state_dict(), tmp_path / "by_hand.pt")
    assert size == pytest.approx((tmp_path / "by_hand.pt").stat().st_size / 1e6, rel=0.01)  # names of files count


def test_a_folder_without_a_network_is_named(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match=str(folder)):
            load_network(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"form": "float"}', '{"form": "int4"}'])
def test_a_description_that_is_none_is_named(saved, text):
    (saved / "network.json").write_text(text)
    with pytest.raises(InputError, match=str(saved)):
        load_network(saved)


def test_a_description_of_another_version_is_named(saved):
    description = json.loads((saved / "network.json").read_text())
    description["network"]["shoe_size"] = 43
    (saved / "network.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match=str(saved)):
        load_network(saved)


def test_an_unknown_form_shows_its_value(saved):
    description = json.loads((saved / "network.json").read_text())
    (saved / "network.json").write_text(json.dumps({**description, "form": "int4"}))
    with pytest.raises(InputError, match="'int4'"):
        load_network(saved)


DAMAGES = [(form, damage) for form in ("float", "int8") for damage in ("missing", "cut")]


@pytest.mark.parametrize(("form", "damage"), [*DAMAGES, ("float", "of_another_network")])
def test_tensors_that_are_missing_damaged_or_of_another_network_are_named(depth_network, int8, tmp_path, damage, form):
    network = int8[False, "per_channel"] if form == "int8" else depth_network
    save_network(tmp_path, network, Form(SPEC, False, form, False, "per_channel" if form == "int8" else None))
    (file,) = (path for path in tmp_path.iterdir() if path.name != "network.json")
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    else:
        save_network(tmp_path, fuse_bn(depth_network), Form(SPEC, False, form))
    with pytest.raises(InputError, match=str(tmp_path)):
        load_network(tmp_path)


class Trap:
    """Would make a folder when unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_nothing_that_is_stored_is_executed(int8, tmp_path):
    save_network(tmp_path, int8[False, "per_tensor"], Form(SPEC, False, "int8", False, "per_tensor", "qnnpack"))
    torch.save({"trap": Trap(str(tmp_path / "sprung"))}, tmp_path / "network.pt")
    with pytest.raises(Exception, match=r"."):
        load_network(tmp_path)
    assert not (tmp_path / "sprung").exists()


def narrow(network, images, granularity, engine="qnnpack"):
    """An int8 network with weights of 8, 4 and 3 bits, and its form."""
    names = list(choose_widths(network, 8, first_last=True))
    widths = dict.fromkeys(names, 4) | {names[0]: 8, names[3]: 3}
    prepared = calibrate(network, granularity, MINMAX, images, weight_bits=widths)
    form = Form(SPEC, False, "int8", False, granularity, engine, widths)
    return qnnpack.convert(prepared, engine), form


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("engine", ENGINES)
def test_weights_of_few_bits_come_back_bit_for_bit_from_a_file_that_packs_them(
    depth_network, images, fresh_images, tmp_path, granularity, engine
):
    network, form = narrow(depth_network, images, granularity, engine)
    save_network(tmp_path, network, form)
    loaded = load_network(tmp_path)
    assert read_form(tmp_path) == form
    assert qnnpack.graph_hash(loaded, engine) == qnnpack.graph_hash(network, engine)
    assert torch.equal(reference(loaded, fresh_images), reference(network, fresh_images))
    qnnpack.use_engine_()


def test_the_size_of_few_bits_is_that_of_the_packed_file_in_the_folder(depth_network, int8, images, tmp_path):
    network, form = narrow(depth_network, images, "per_tensor")
    save_network(tmp_path, network, form)
    (file,) = tmp_path.glob("network.packed.*")
    weights = sum(value.numel() for value in network.state_dict().values() if value.is_quantized)
    assert size_mb(load_network(tmp_path), tmp_path) == file.stat().st_size / 1e6
    assert 0.5 * weights < file.stat().st_size < 0.6 * weights
    assert size_mb(int8[False, "per_tensor"], tmp_path) * 1e6 > weights


def test_a_prepared_network_of_few_bits_comes_back_with_its_widths(depth_network, images, fresh_images, tmp_path):
    widths = choose_widths(depth_network, 4, first_last=True)
    prepared = calibrate(depth_network, "per_channel", MINMAX, images, weight_bits=widths)
    save_network(tmp_path, prepared, Form(SPEC, False, "prepared", False, "per_channel", weight_bits=widths))
    loaded = load_prepared(tmp_path)
    assert {name: conv.weight_quantizer.bits for name, conv in quant_convs(loaded).items()} == widths
    assert torch.equal(reference(loaded, fresh_images), reference(prepared, fresh_images))


def test_a_network_of_eight_bits_is_described_as_before_widths_could_be_chosen(int8, calibrated, tmp_path):
    save_network(tmp_path, int8[ARMS[0]], Form(SPEC, False, "int8", False, "per_channel", "qnnpack"))
    assert {file.name for file in tmp_path.iterdir()} == {"network.json", "network.pt"}
    assert "weight_bits" not in (tmp_path / "network.json").read_text()
    assert not read_form(tmp_path).weight_bits


@pytest.mark.parametrize("damage", ["cut", "of_another_width", "of_other_shapes"])
def test_a_packed_file_that_is_damaged_or_of_another_network_is_named(depth_network, images, tmp_path, damage):
    network, form = narrow(depth_network, images, "per_channel")
    save_network(tmp_path, network, form)
    file = tmp_path / "network.packed.safetensors"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "of_another_width":
        description = json.loads((tmp_path / "network.json").read_text())
        description["weight_bits"][next(iter(form.weight_bits))] = 7
        (tmp_path / "network.json").write_text(json.dumps(description))
    else:
        tensors = load_file(file)
        save_file({name: value[:-1] for name, value in tensors.items()}, file)
    with pytest.raises(InputError, match=str(tmp_path)):
        load_network(tmp_path)


LINEAR_AND_TRANSPOSED = """
from torch import nn


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.gate = nn.Linear(8, 8)
        self.up = nn.ConvTranspose2d(8, 1, 2, stride=2)

    def forward(self, x):
        x = self.body(x)
        return self.up(x * self.gate(x.mean((2, 3))).sigmoid()[:, :, None, None])


def build(input_size):
    return Small()
"""


@pytest.mark.parametrize("form", ["float", "prepared", "int8"])
def test_layers_that_became_convolutions_come_back_in_every_form(images, tmp_path, form):
    (tmp_path / "small.py").write_text(LINEAR_AND_TRANSPOSED)
    spec = NetworkSpec(register_network(tmp_path / "small.py"), 64)
    network = trace(build_network(spec).eval(), images[:1])
    if form != "float":
        network = calibrate(network, "per_channel", MINMAX, images)
    if form == "int8":
        network = qnnpack.convert(network)
    granularity = None if form == "float" else "per_channel"
    save_network(
        tmp_path,
        network,
        Form(spec, False, form, granularity=granularity, engine="qnnpack" if form == "int8" else None),
    )
    loaded = load_network(tmp_path)
    assert same_tensors(loaded.state_dict(), network.state_dict())
    assert torch.equal(reference(loaded, images), reference(network, images))
