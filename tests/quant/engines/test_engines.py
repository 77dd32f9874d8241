"""PyTorch's kernels compute one network; an engine that is missing says how to install it."""

import pytest
import torch

from quant.artifact import Form, load_network, save_network
from quant.engines import catalog, qnnpack
from quant.engines.exported import ExportError, export
from quant.engines.saturation import saturates
from quant.recipe import CalibrateSpec
from tests.quant.networks import noise

SIZE = 64
MINMAX = CalibrateSpec(activation_range="minmax")


def unable(engine):
    """Why this processor's kernels of an engine compute something else than their network says, or None."""
    if engine not in torch.backends.quantized.supported_engines:
        return f"this PyTorch has no {engine}"
    return f"{engine} adds pairs of products in 16 bits without VNNI" if saturates(engine) else None


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
    from model.network.spec import NetworkSpec

    form = Form(NetworkSpec(input_size=SIZE), fused=True, form="int8", granularity="per_channel", engine="onednn")
    save_network(tmp_path, qnnpack.convert(calibrated[True, "per_channel"], "onednn"), form)
    qnnpack.use_engine_()
    load_network(tmp_path)
    assert torch.backends.quantized.engine == "onednn"
    qnnpack.use_engine_()


def test_an_engine_whose_packages_are_missing_says_how_to_install_them(monkeypatch, calibrated, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    reason = "onnxruntime needs onnxruntime, onnx, onnxscript: pip install -r requirements-engines.txt"
    assert catalog.missing("onnxruntime") == reason
    assert catalog.missing("qnnpack") is None
    with pytest.raises(ExportError, match="pip install -r"):
        export(calibrated[True, "per_channel"], "xnnpack", torch.zeros(1, 3, SIZE, SIZE), tmp_path / "network.pte")
    assert not list(tmp_path.iterdir())
