"""The estimate of an NPU's compiler: what it says is read, and what it lacks or complains about is told."""

import pytest
import torch
from torch import nn

from quant.calibrate import calibrate
from quant.engines import catalog
from quant.engines.catalog import NPUS, missing, missing_npu
from quant.engines.exported import export
from quant.engines.litert import vela
from quant.engines.litert.vela import estimate
from quant.recipe import CalibrateSpec
from quant.tracing.trace import fuse_bn

FIGURES = {
    "inference_time": 0.0125,
    "sram_memory_used": 1000,
    "dram_memory_used": 0,
    "on_chip_flash_memory_used": 0,
    "off_chip_flash_memory_used": 500,
}
SUMMARY = f"{','.join(FIGURES)}\n{','.join(map(str, FIGURES.values()))}"


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A command in the compiler's place, by the shell text that it runs."""

    def written(text: str):
        file = tmp_path / "vela"
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
        monkeypatch.setattr(vela, "VELA", file)
        monkeypatch.setattr(catalog, "VELA", file)
        return tmp_path / "network.tflite"

    return written


def test_its_table_and_its_words_are_read(compiler):
    path = compiler(f"""[ "$2 $3" = "--accelerator-config ethos-u55-128" ] || exit 3
cat > "$5/network_summary_default.csv" <<'END'
{SUMMARY}
END
echo 'CPU operators = 1 (5.0%)'
echo 'NPU operators = 19 (95.0%)'""")
    found = estimate(path, "ethos-u55-128")
    assert (found.ms, found.share) == (12.5, 0.95)
    assert (found.sram_mb, found.flash_mb) == (pytest.approx(1.024), pytest.approx(0.512))


def test_what_it_complains_about_is_told(compiler):
    path = compiler("echo 'Error: Invalid tflite file' >&2; exit 1")
    with pytest.raises(RuntimeError, match=r"^vela failed with status 1: Error: Invalid tflite file$"):
        estimate(path, "ethos-u55-128")


def test_without_it_the_command_that_installs_it_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(catalog, "VELA", tmp_path / "none")
    assert missing_npu("none") is None
    with pytest.raises(RuntimeError, match="ethos-u55-128 needs ethos-u-vela in an environment of its own: make vela"):
        estimate(tmp_path / "network.tflite", "ethos-u55-128")


@pytest.mark.skipif(bool(missing("litert") or missing_npu(NPUS[0])), reason="make vela, make engines")
@pytest.mark.parametrize("accelerator", ["ethos-u55-128", "ethos-u85-256"])
def test_an_int8_convolution_runs_on_the_npu(accelerator, tmp_path):
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    network = fuse_bn(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval(), images[:1])
    prepared = calibrate(network, "per_channel", CalibrateSpec(activation_range="minmax"), images)
    path = tmp_path / "network.tflite"
    export(prepared, "litert", images[:1], path)
    found = estimate(path, accelerator)
    assert 0 < found.ms < 10
    assert found.share > 0
    assert list(tmp_path.iterdir()) == [path]
