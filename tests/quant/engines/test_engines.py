"""One recipe on every engine: the same integers and scales, nearly the same outputs; what is missing is said."""

import copy
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from torch import fx

from quant.artifact import Form, load_network, read_form, save_network, size_mb
from quant.calibrate import calibrate
from quant.engines import catalog, qnnpack, xnnpack
from quant.engines.decomposed import DEQUANTIZE, QUANTIZE, Int8Conv, decompose
from quant.engines.exported import ExportedNetwork, ExportError, arithmetic_hash, export, file_name, require_constants
from quant.fake_quantize import FakeQuantize
from quant.graph import module_of, trace
from quant.prepare import quant_convs, quantizers
from quant.recipe import CalibrateSpec
from quant.scaled_silu import ScaledSiLU, scale_silus
from tests.quant.networks import AllKinds, activation_quantizers, settled

SIZE = 64
MINMAX = CalibrateSpec(activation_range="minmax")
MOST_NOISE = {"onnxruntime": 0.05, "xnnpack": 0.1}
"""Against the simulation, as a share of the signal; XNNPACK's gates of SiLU are rounded twice more than it knows."""
WHOLE = {"onnxruntime": "per_channel", "xnnpack": "per_tensor"}
"""The granularity in which the real network is written for an engine: half a minute each for XNNPACK."""


def installed(engine, *more):
    """A parameter of tests that are skipped where the engine is not installed."""
    missing = catalog.missing(engine)
    return pytest.param(engine, *more, marks=pytest.mark.skipif(missing is not None, reason=str(missing)))


INSTALLED = [installed(engine) for engine in catalog.PACKAGES]
WRITTEN = [installed("onnxruntime", "per_channel"), installed("onnxruntime", "per_tensor")]
WRITTEN += [installed("xnnpack", "per_tensor")]


@pytest.fixture(scope="module")
def scaled(depth_network, images):
    """The real network, per tensor, with SiLUs that carry scales."""
    network = scale_silus(trace(depth_network))
    for index, module in enumerate(m for m in network.modules() if isinstance(m, ScaledSiLU)):
        module.scale_(torch.arange(len(module.exponent)) % 5 + index % 3 - 3)
    return calibrate(network, "per_tensor", MINMAX, images)


@pytest.fixture(scope="module")
def exported_files(calibrated, scaled, depth_network, tmp_path_factory):
    """Exported files by engine and granularity (or float), each written once."""
    made = {}
    networks = {"per_channel": calibrated[True, "per_channel"], "per_tensor": scaled, "float": depth_network}

    def file(engine, name):
        if (engine, name) not in made:
            path = tmp_path_factory.mktemp(f"{engine}-{name}") / file_name(engine)
            made[engine, name] = (path, networks[name], export(networks[name], engine, SIZE, path))
        return made[engine, name]

    return file


def noise(output, reference):
    """Error as a share of the signal."""
    return float((output - reference).detach().pow(2).mean().sqrt() / reference.detach().std())


class SideBySide(fx.Interpreter):
    """Runs a decomposed network on the values of its prepared one: every operator gets the same inputs in both.

    Rounding is compared in levels. A whole network cannot be compared: one bit in a convolution, which another
    processor sums in another order, flips a level, and the levels behind it follow.
    """

    def __init__(self, decomposed, prepared, images):
        super().__init__(decomposed)
        self.values = {}
        recorder = fx.Interpreter(prepared)
        run_node = recorder.run_node
        recorder.run_node = lambda node: self.values.setdefault(node.name, run_node(node))
        self.quantizers = {}
        for node in prepared.graph.nodes:
            if isinstance(module_of(prepared, node), FakeQuantize):
                self.quantizers.setdefault(node.args[0].name, (node.name, module_of(prepared, node)))
        convs = [name for name, module in decomposed.named_modules() if isinstance(module, Int8Conv)]
        self.tied = {name: largest_tie(decomposed, prepared, name) for name in convs}
        self.compared = Counter()
        with torch.inference_mode():
            recorder.run(images)
            self.run(images)

    def run_node(self, node):
        found = super().run_node(node)
        if node.target is DEQUANTIZE:
            source = node.args[0].args[0].name
            name, quantizer = self.quantizers[source]
            levels, expected = (quantizer.quantize(value) for value in (found, self.values[name]))
            apart = (levels - expected).abs()
            assert apart.max() <= 1, f"{source} is rounded to another level"
            half = ((self.values[source] / quantizer.scale).abs() % 1 - 0.5).abs()
            assert (half[apart > 0] < 1e-3).all(), f"{source} differs where rounding is no tie"
            self.compared["rounding"] += 1
            return self.values[name]
        if node.name not in self.values or not isinstance(found, torch.Tensor):
            return found
        expected = self.values[node.name]
        slack = 1e-4 * float(expected.abs().max())
        if isinstance(conv := module_of(self.module, node), Int8Conv):
            slack += self.tied[str(node.target)] * float(self.env[node.args[0]].abs().max())
        assert torch.allclose(found, expected, rtol=1e-4, atol=slack), f"{conv or node.target} computes something else"
        self.compared["operator"] += 1
        return expected


def largest_tie(decomposed, prepared, name):
    """How far the weight of a convolution is from its simulation: nothing, or a level where it was half way."""
    found, conv = decomposed.get_submodule(name), quant_convs(prepared)[name]
    weight = conv.folded()[0]
    apart = conv.weight_quantizer.quantize(conv.weight_quantizer(weight)) - found.weight
    assert apart.abs().max() <= 1, f"{name} has other integers than its simulation"
    scale = conv.weight_quantizer.scale.reshape(-1, 1, 1, 1)
    half = ((weight / scale).abs() % 1 - 0.5).abs()
    assert half[apart != 0].numel() < 5, name
    assert (half[apart != 0] < 1e-3).all(), f"{name} differs where rounding is no tie"
    return float((apart.abs() * scale).flatten(1).sum(1).max())


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_explicit_rounding_computes_what_the_quantizers_do(calibrated, fresh_images, signed, granularity):
    prepared = calibrated[False, granularity]
    decomposed = decompose(prepared, signed)
    compared = SideBySide(decomposed, prepared, fresh_images).compared
    assert compared["rounding"] >= len(activation_quantizers(prepared)) > 50
    assert compared["operator"] > 100
    for name, conv in quant_convs(prepared).items():
        assert torch.equal(decomposed.get_submodule(name).weight, conv.weight_quantizer.quantize(conv.folded()[0])), (
            name
        )


def test_scaled_silus_lose_nothing_but_the_order_of_products(scaled, fresh_images):
    assert noise(decompose(scaled, False)(fresh_images), scaled(fresh_images)) < 0.01


def test_sites_that_are_off_stay_float(calibrated, fresh_images):
    prepared = copy.deepcopy(calibrated[True, "per_channel"])
    names = list(quantizers(prepared))
    for name in names[::3]:
        quantizers(prepared)[name].set_mode("off")
    compared = SideBySide(decompose(prepared, True), prepared, fresh_images).compared
    on = [name for name in activation_quantizers(prepared) if name not in names[::3]]
    assert len(on) <= compared["rounding"], "those that are on round"
    decomposed = decompose(prepared, True)
    rounded = sum(node.target is QUANTIZE for node in decomposed.graph.nodes)
    assert rounded == sum(
        isinstance(module_of(prepared, node), FakeQuantize) and module_of(prepared, node).mode != "off"
        for node in prepared.graph.nodes
    )
    convs = quant_convs(prepared)
    integers = {name for name in convs if isinstance(decomposed.get_submodule(name), Int8Conv)}
    assert integers == {name for name in convs if f"{name}.weight_quantizer" not in names[::3]} != set(convs)


def unable(engine):
    """Why this processor's kernels of an engine compute something else than their network says, or None."""
    if engine not in torch.backends.quantized.supported_engines:
        return f"this PyTorch has no {engine}"
    qnnpack.use_engine_(engine)
    scales, zeros = torch.full((8,), 1 / 127), torch.zeros(8, dtype=torch.long)
    weight = torch.quantize_per_channel(torch.ones(8, 64, 1, 1), scales, zeros, 0, torch.qint8)
    images = torch.quantize_per_tensor(torch.ones(1, 64, 8, 8), 1 / 255, 0, torch.quint8)
    packed = torch.ops.quantized.conv2d_prepack(weight, None, [1, 1], [0, 0], [1, 1], 1)
    sums = torch.ops.quantized.conv2d(images, packed, 0.5, 0).dequantize()
    qnnpack.use_engine_()
    return None if (sums - 64).abs().max() <= 0.5 else f"{engine} adds pairs of products in 16 bits without VNNI"


@pytest.mark.parametrize("engine", ["x86", "onednn"])
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_torchs_other_kernels_compute_the_same_network(calibrated, fresh_images, tmp_path, engine, granularity):
    if reason := unable(engine):
        pytest.skip(reason)
    prepared = calibrated[True, granularity]
    with torch.inference_mode():
        expected = prepared(fresh_images)
        converted = qnnpack.convert(prepared, engine)
        outputs = converted(fresh_images)
    assert noise(outputs, expected) < 0.05
    assert qnnpack.graph_hash(converted, engine) != qnnpack.graph_hash(converted)
    assert torch.backends.quantized.engine == engine
    qnnpack.use_engine_()


def test_a_saved_network_selects_its_engine(calibrated, tmp_path):
    from model.network.depth_network import NetworkSpec

    form = Form(NetworkSpec(input_size=SIZE), fused=True, form="int8", granularity="per_channel", engine="onednn")
    save_network(tmp_path, qnnpack.convert(calibrated[True, "per_channel"], "onednn"), form)
    qnnpack.use_engine_()
    load_network(tmp_path)
    assert torch.backends.quantized.engine == "onednn"
    qnnpack.use_engine_()


@pytest.mark.parametrize(("engine", "granularity"), WRITTEN)
def test_a_file_computes_what_the_recipe_simulates(exported_files, fresh_images, engine, granularity):
    path, prepared, _ = exported_files(engine, granularity)
    with torch.inference_mode():
        assert noise(ExportedNetwork(engine, path)(fresh_images), prepared(fresh_images)) < MOST_NOISE[engine]
        assert noise(torch.zeros_like(prepared(fresh_images)), prepared(fresh_images)) > 0.5, "it must be able to fail"


@pytest.mark.skipif(catalog.missing("xnnpack") is not None, reason=str(catalog.missing("xnnpack")))
def test_xnnpack_is_nearer_to_gates_in_int8_than_to_the_recipes_float_gates(exported_files, fresh_images):
    path, prepared, _ = exported_files("xnnpack", "per_tensor")
    written = xnnpack._requantized_concatenations(xnnpack._int8_gates(decompose(prepared, True)))
    with torch.inference_mode():
        outputs = ExportedNetwork("xnnpack", path)(fresh_images)
        assert noise(outputs, written(fresh_images)) < noise(outputs, prepared(fresh_images))


@pytest.mark.parametrize("engine", INSTALLED)
def test_a_float_file_computes_the_float_network(exported_files, fresh_images, engine):
    path, network, _ = exported_files(engine, "float")
    with torch.inference_mode():
        assert noise(ExportedNetwork(engine, path)(fresh_images), network(fresh_images)) < 1e-4


@pytest.mark.parametrize("engine", INSTALLED)
def test_a_file_holds_the_integers_and_scales_of_its_recipe_and_of_no_other(exported_files, calibrated, engine):
    path, prepared, _ = exported_files(engine, WHOLE[engine])
    signed, other = engine == "xnnpack", next(g for g in WHOLE.values() if g != WHOLE[engine])
    require_constants(engine, path, decompose(prepared, signed))
    with pytest.raises(ExportError, match=f"{path.name} does not hold what the recipe found: .*weight|scale|layer"):
        require_constants(engine, path, decompose(calibrated[True, other], signed))


@pytest.mark.parametrize("engine", INSTALLED)
def test_another_number_of_threads_gives_the_same_outputs(exported_files, fresh_images, engine):
    network = ExportedNetwork(engine, exported_files(engine, WHOLE[engine])[0])
    before = torch.get_num_threads()
    try:
        outputs = []
        for threads in (1, 2, 1):
            torch.set_num_threads(threads)
            outputs.append(network(fresh_images[:2]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize("engine", INSTALLED)
def test_an_exported_network_is_saved_and_loaded_as_others_are(exported_files, fresh_images, engine):
    from model.network.depth_network import NetworkSpec

    path, _, _ = exported_files(engine, WHOLE[engine])
    form = Form(NetworkSpec(input_size=SIZE), fused=True, form="int8", granularity=WHOLE[engine], engine=engine)
    network = ExportedNetwork(engine, path)
    save_network(path.parent, network, form)
    assert read_form(path.parent) == form
    loaded = load_network(path.parent)
    assert torch.equal(loaded(fresh_images), network(fresh_images))
    assert size_mb(loaded, path.parent) == path.stat().st_size / 1e6 < 1.9


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # an import of it would fail
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
images = np.load(sys.argv[2])
np.save(sys.argv[3], np.concatenate([session.run(None, {"image": image[None]})[0] for image in images]))
"""


@pytest.mark.skipif(catalog.missing("onnxruntime") is not None, reason=str(catalog.missing("onnxruntime")))
def test_an_onnx_file_runs_where_there_is_no_torch(exported_files, fresh_images, tmp_path):
    path, _, _ = exported_files("onnxruntime", "per_channel")
    np.save(tmp_path / "images.npy", fresh_images.numpy())
    arguments = [str(path), str(tmp_path / "images.npy"), str(tmp_path / "depth.npy")]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    depth = torch.from_numpy(np.load(tmp_path / "depth.npy"))
    assert torch.allclose(depth, ExportedNetwork("onnxruntime", path)(fresh_images), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("engine", INSTALLED)
def test_every_kind_of_operator_gets_into_a_file(images, engine, tmp_path):
    torch.manual_seed(0)
    prepared = calibrate(settled(AllKinds(), images), "per_channel", MINMAX, images)
    export(prepared, engine, SIZE, tmp_path / file_name(engine))
    with torch.inference_mode():
        assert (
            noise(ExportedNetwork(engine, tmp_path / file_name(engine))(images), prepared(images)) < MOST_NOISE[engine]
        )


def test_the_hash_of_the_arithmetic_knows_integers_and_scales_but_no_names(calibrated):
    one, other = (decompose(calibrated[True, g], False) for g in ("per_channel", "per_tensor"))
    assert arithmetic_hash(one) == arithmetic_hash(decompose(calibrated[True, "per_channel"], False))
    assert arithmetic_hash(one) != arithmetic_hash(other)
    assert arithmetic_hash(one) != arithmetic_hash(decompose(calibrated[True, "per_channel"], True))


def test_an_engine_whose_packages_are_missing_says_how_to_install_them(monkeypatch, calibrated, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    reason = "onnxruntime needs onnxruntime, onnx, onnxscript: pip install -r requirements-engines.txt"
    assert catalog.missing("onnxruntime") == reason
    assert catalog.missing("qnnpack") is None
    with pytest.raises(ExportError, match="pip install -r"):
        export(calibrated[True, "per_channel"], "xnnpack", SIZE, tmp_path / "network.pte")
    assert not list(tmp_path.iterdir())
