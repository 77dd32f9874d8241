"""Sums that saturate at 16 bits are found where a processor has them, and packed out of the way where it can be."""

import copy
import io
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.engines.saturation import saturates
from quant.prepare import quant_convs
from quant.recipe import CalibrateSpec
from tests.grid.tiny import ROOT
from tests.quant.networks import noise

ENGINES = torch.backends.quantized.supported_engines
needs_x86 = pytest.mark.skipif("x86" not in ENGINES, reason="this PyTorch has no x86 kernels")
CHANNELS = 128
"""Of a depthwise convolution: PyTorch's engine x86 takes FBGEMM's kernels for more than 100."""


@pytest.fixture(scope="module")
def loud():
    """A depthwise convolution whose weights are all at the end of their range, and bright pictures for it."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, CHANNELS, 1), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS)
    ).eval()
    with torch.no_grad():
        network[0].weight.fill_(1.0)
        network[1].weight.fill_(1.0)
    images = 0.9 + 0.1 * torch.rand(2, 3, 8, 8)
    return calibrate(network, "per_channel", CalibrateSpec(activation_range="minmax"), images), images


def test_qnnpack_does_not_saturate():
    before = torch.backends.quantized.engine
    assert not saturates("qnnpack")
    assert torch.backends.quantized.engine == before


@needs_x86
def test_fbgemm_s_depthwise_kernels_saturate_on_every_processor():
    assert saturates("fbgemm")


@needs_x86
@pytest.mark.parametrize("relu", [False, True])
def test_depthwise_sums_are_exact_on_x86_also_after_loading_and_copying(loud, relu):
    prepared, images = loud
    prepared = copy.deepcopy(prepared)
    quant_convs(prepared)["1"].limit = float("inf") if relu else None
    with torch.inference_mode():
        expected = prepared(images)
        int8 = qnnpack.convert(prepared, "x86")
        file = io.BytesIO()
        torch.save(int8.state_dict(), file)
        file.seek(0)
        loaded = qnnpack.convert(prepared, "x86")
        loaded.load_state_dict(torch.load(file, weights_only=True))
        qnnpack.use_engine_()
        others = (int8, copy.deepcopy(int8), loaded)
        assert all(noise(one(images), expected) < 0.05 for one in others)


@needs_x86
def test_fbgemm_loses_what_x86_keeps(loud):
    prepared, images = loud
    with torch.inference_mode():
        found = qnnpack.convert(prepared, "fbgemm")(images)
        expected = prepared(images)
    qnnpack.use_engine_()
    assert float(found.mean()) < 0.7 * float(expected.mean()), "or x86 needs no help any more"


@needs_x86
def test_a_processor_without_vnni_is_found_out():
    command = "from quant.engines.saturation import saturates; print(saturates('onednn'), saturates('qnnpack'))"
    run = [sys.executable, "-W", "ignore", "-c", command]
    without = {**os.environ, "DNNL_MAX_CPU_ISA": "AVX2"}  # oneDNN then takes the kernels of such a processor
    assert subprocess.run(run, cwd=ROOT, env=without, text=True, stdout=-1, check=True).stdout.split() == [
        "True",
        "False",
    ]
