"""Files of the engines: the integers and scales of their recipe, nearly its outputs, and the same whoever runs them."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from quant.artifact import Form, load_network, read_form, save_network, size_mb
from quant.calibrate import calibrate
from quant.engines import catalog, xnnpack
from quant.engines.decomposed import decompose
from quant.engines.exported import ExportedNetwork, ExportError, export, file_name, require_constants
from quant.engines.int8_forms import int8_gates, requantized_concatenations
from quant.recipe import CalibrateSpec
from quant.tracing.trace import fuse_bn
from tests.quant.networks import AllKinds, noise, settled
from tests.quant.tracing.zoo_tokens import PatchAttention

SIZE = 64
MINMAX = CalibrateSpec(activation_range="minmax")
MOST_NOISE = {"onnxruntime": 0.05, "xnnpack": 0.1, "litert": 0.1}
"""Against the simulation, as a share of the signal; gates of SiLU in int8 are rounded twice more than it knows."""
WHOLE = {"onnxruntime": "per_channel", "xnnpack": "per_tensor", "litert": "per_channel"}
"""The granularity in which the real network is written for an engine: half a minute each for XNNPACK."""


def installed(engine, *more):
    """A parameter of tests that are skipped where the engine is not installed."""
    missing = catalog.missing(engine)
    return pytest.param(engine, *more, marks=pytest.mark.skipif(missing is not None, reason=str(missing)))


INSTALLED = [installed(engine) for engine in catalog.PACKAGES]
WRITTEN = [installed("onnxruntime", "per_channel"), installed("onnxruntime", "per_tensor")]
WRITTEN += [installed("xnnpack", "per_tensor"), installed("litert", "per_channel"), installed("litert", "per_tensor")]


@pytest.fixture(scope="module")
def exported_files(calibrated, scaled, depth_network, tmp_path_factory):
    """Exported files by engine and granularity (or float), each written once."""
    made = {}
    networks = {"per_channel": calibrated[True, "per_channel"], "per_tensor": scaled, "float": depth_network}

    def file(engine, name):
        if (engine, name) not in made:
            path = tmp_path_factory.mktemp(f"{engine}-{name}") / file_name(engine)
            made[engine, name] = (
                path,
                networks[name],
                export(networks[name], engine, torch.zeros(1, 3, SIZE, SIZE), path),
            )
        return made[engine, name]

    return file


@pytest.mark.parametrize(("engine", "granularity"), WRITTEN)
def test_a_file_computes_what_the_recipe_simulates(exported_files, fresh_images, engine, granularity):
    path, prepared, _ = exported_files(engine, granularity)
    with torch.inference_mode():
        assert noise(ExportedNetwork(engine, path)(fresh_images), prepared(fresh_images)) < MOST_NOISE[engine]
        assert noise(torch.zeros_like(prepared(fresh_images)), prepared(fresh_images)) > 0.5, "it must be able to fail"


@pytest.mark.skipif(catalog.missing("xnnpack") is not None, reason=str(catalog.missing("xnnpack")))
def test_xnnpack_is_nearer_to_gates_in_int8_than_to_the_recipes_float_gates(exported_files, fresh_images):
    path, prepared, _ = exported_files("xnnpack", "per_tensor")
    written = requantized_concatenations(int8_gates(decompose(prepared, True), xnnpack.GATE))
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
    signed, other = engine != "onnxruntime", next(g for g in WHOLE.values() if g != WHOLE[engine])
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
    from model.network.spec import NetworkSpec

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
    export(prepared, engine, torch.zeros(1, 3, SIZE, SIZE), tmp_path / file_name(engine))
    with torch.inference_mode():
        assert (
            noise(ExportedNetwork(engine, tmp_path / file_name(engine))(images), prepared(images)) < MOST_NOISE[engine]
        )


@pytest.mark.parametrize("engine", INSTALLED)
def test_attention_over_a_batch_of_pixels_is_taken(engine, tmp_path):
    torch.manual_seed(0)
    network, images = PatchAttention().eval(), torch.randn(2, 3, 16, 16)
    prepared = calibrate(fuse_bn(network, images[:1]), "per_channel", MINMAX, images)
    export(prepared, engine, torch.zeros(1, 3, 16, 16), tmp_path / file_name(engine))
    written = ExportedNetwork(engine, tmp_path / file_name(engine))
    with torch.no_grad():
        assert noise(written(images), prepared(images)) < MOST_NOISE[engine]
