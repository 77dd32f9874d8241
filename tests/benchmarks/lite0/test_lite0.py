"""The benchmark on photographs: its pictures, its network, what it counts, and other tools on a small one."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.lite0 import ours, stock
from benchmarks.lite0.__main__ import HEAD, compare, markdown, summary
from benchmarks.lite0.network import build, pretrained
from benchmarks.lite0.pictures import CENTRE, CROPS, ten_crops
from model.errors import InputError
from model.noise import sqnr_db
from quant.engines.catalog import missing

TINY = ((16, 3, 1, 1, 1), (24, 3, 2, 6, 2), (40, 5, 2, 6, 1))
SIZE = 32
engines = pytest.mark.skipif(missing("onnxruntime") is not None, reason="make engines")


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    network = build(TINY, classes=10, head=64).train()
    images = torch.rand(16, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        for _ in range(10):
            network(images)
    return network.eval(), images


def picture(path, mode="RGB", size=(320, 240), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def test_colour_pictures_come_in_the_order_of_their_numbers_and_depth_maps_are_left_out(tmp_path):
    for number in (10, 2, 1):
        picture(tmp_path / "scene" / f"{number}.png", seed=number)
        picture(tmp_path / "scene" / f"{number}_depth.png", mode="L")
    crops = ten_crops(tmp_path)
    assert crops.shape == (3, CROPS, 3, 224, 224)
    assert crops.min() >= -127 / 128
    assert crops.max() <= 1.0
    (tmp_path / "first").mkdir()
    picture(tmp_path / "first" / "1.png", seed=1)
    picture(tmp_path / "first" / "2.png", seed=2)
    assert torch.equal(ten_crops(tmp_path / "first"), crops[:2])
    assert torch.equal(crops[:, 1].flip(-1), crops[:, 5]), "the corners of the mirrored picture"


def test_a_folder_without_two_pictures_and_a_broken_one_are_refused(tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        ten_crops(tmp_path / "none")
    picture(tmp_path / "1.png")
    with pytest.raises(InputError, match="has 1 colour pictures"):
        ten_crops(tmp_path)
    (tmp_path / "2.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"2\.jpg: cannot be read"):
        ten_crops(tmp_path)


def test_the_network_is_that_of_timm_with_the_weights_of_the_package():
    import timm

    theirs = timm.create_model("tf_efficientnet_lite0").eval()
    network, image = pretrained(), torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    theirs.load_state_dict(dict(zip(theirs.state_dict(), network.state_dict().values(), strict=True)))
    with torch.no_grad():
        torch.testing.assert_close(network(image), theirs(image), rtol=1e-4, atol=1e-4)


def test_a_row_counts_changed_classes_by_their_float_margin():
    exact = torch.tensor([[[3.0, 2.9, 0, 0, 0, -1]] * CROPS, [[3.0, 1.0, 0, 0, 0, -1]] * CROPS])
    found = exact.clone()
    found[0, CENTRE, 0], found[1, 0, 1] = 2.0, 4.0
    row = compare("a", exact, found, "all", None, 0.0)
    assert row.agreement == pytest.approx(18 / 20)
    assert row.centre_agreement == pytest.approx(1 / 2)
    assert row.clear_agreement == pytest.approx(9 / 10)
    assert row.lost_margin == pytest.approx(2.0)
    assert row.top5 == pytest.approx(1.0)
    assert row.sqnr_db == pytest.approx(sqnr_db(exact, found))
    assert markdown(row).count("|") == HEAD.splitlines()[0].count("|")


def test_the_summary_compares_like_with_like(capsys):
    exact = torch.randn(4, CROPS, 8, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(exact.shape, generator=torch.Generator().manual_seed(1))
    sizes = {"ours, simulated": 0.1, "ours, qnnpack": 0.11, "ours, onnxruntime": 0.2}
    sizes |= {"ONNX Runtime, a": 0.4, "ONNX Runtime, b": 0.8}
    summary({name: compare(name, exact, exact + size * noise, "", None, 0.0) for name, size in sizes.items()})
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    values = {line["name"]: line["value"] for line in said}
    assert values["lite0 sqnr_db"] == pytest.approx(sqnr_db(exact, exact + 0.11 * noise), rel=1e-3)
    assert values["lite0 engine and simulation"] == pytest.approx(20 * math.log10(2), rel=1e-3)
    assert values["lite0 lead"] == pytest.approx(20 * math.log10(2), rel=1e-3)


def test_every_layer_is_in_int8_on_qnnpack_and_agrees_with_the_simulation(tiny):
    network, images = tiny
    prepared, typical = ours.calibrated(network, images)
    rounded = ours.rounded(prepared, typical)
    int8, layers = ours.on_qnnpack(rounded)
    assert layers == sum(isinstance(module, torch.nn.Conv2d | torch.nn.Linear) for module in network.modules())
    exact, simulated = ours.logits(network, images), ours.logits(rounded, images)
    assert abs(sqnr_db(exact, ours.logits(int8, images)) - sqnr_db(exact, simulated)) < 1.0
    assert sqnr_db(exact, ours.logits(ours.float_weights(prepared), images)) > sqnr_db(exact, prepared(images))


@engines
@pytest.mark.parametrize("settings", ["default", "per channel, MinMax, QUInt8"])
def test_onnx_runtime_quantizes_every_layer_of_the_float_file(tiny, tmp_path, settings):
    network, images = tiny
    stock.float_onnx(network, images[:1], tmp_path / "float.onnx")
    assert stock.int8_layers(tmp_path / "float.onnx") == 0
    chosen = stock.ORT_SETTINGS[settings]
    found = stock.onnxruntime(tmp_path / "float.onnx", images, tmp_path / "int8.onnx", chosen)
    layers = sum(isinstance(module, torch.nn.Conv2d | torch.nn.Linear) for module in network.modules())
    assert stock.int8_layers(tmp_path / "int8.onnx") == layers
    assert 5 < sqnr_db(ours.logits(network, images), ours.logits(found, images)) < 60


@engines
@pytest.mark.slow
def test_pt2e_quantizes_every_layer(tiny):
    network, images = tiny
    found = stock.pt2e(network, images, "x86")
    layers = sum(isinstance(module, torch.nn.Conv2d | torch.nn.Linear) for module in network.modules())
    assert stock.int8_layers_of_graph(found) == layers
    assert 5 < sqnr_db(ours.logits(network, images), ours.logits(found, images)) < 60


@engines
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "xnnpack"])
def test_our_file_agrees_with_the_simulation(tiny, tmp_path, engine):
    network, images = tiny
    prepared, _ = ours.calibrated(network, images)
    file, layers = ours.exported(prepared, engine, SIZE, tmp_path / "file")
    exact = ours.logits(network, images)
    assert layers == sum(isinstance(module, torch.nn.Conv2d | torch.nn.Linear) for module in network.modules())
    assert abs(sqnr_db(exact, ours.logits(file, images)) - sqnr_db(exact, ours.logits(prepared, images))) < 1.0
    if engine == "onnxruntime":
        assert stock.int8_layers(tmp_path / "file") == layers
