"""The default recipe on the shipped network keeps what it reached: a change to any pass that costs accuracy is seen."""

import pytest
import torch

from benchmarks.subject import float_network
from model.data.rooms.render import VIEWS_PER_SCENE, render_frame
from model.images import normalize
from model.noise import sqnr_db
from quant.calibrate import calibrate
from quant.engines import qnnpack
from quant.equalization.equalize import equalize
from quant.recipe import CalibrateSpec, EqualizeSpec, RoundingSpec
from quant.tracing.trace import fuse_bn
from quant.weight_rounding.rounding import round_weights_optq

LEAST_DB = {"per_channel": 30.4, "per_tensor": 29.2}
"""0.9 dB below what was measured when this was written: 31.3 and 30.1."""


def rendered(split: str, count: int) -> torch.Tensor:
    """One view of each of so many rooms."""
    frames = [torch.from_numpy(render_frame(split, index * VIEWS_PER_SCENE).image) for index in range(count)]
    return normalize(torch.stack(frames))


@pytest.mark.slow
@pytest.mark.parametrize("granularity", LEAST_DB)
def test_its_figures_stay(granularity):
    images, fresh = rendered("train", 12), rendered("test", 6)
    network = float_network()
    fused = fuse_bn(network)
    equalized = equalize(fused, EqualizeSpec(images=12), images, granularity)
    prepared = calibrate(equalized, granularity, CalibrateSpec(), images)
    rounded, _, _ = round_weights_optq(prepared, RoundingSpec(images=12), images, seed=42)
    int8 = qnnpack.convert(rounded)
    with torch.no_grad():
        exact = network(fresh)
        assert (equalized(fresh) - exact).abs().max() < 1e-3 * exact.abs().max()
        simulated, shipped = sqnr_db(exact, rounded(fresh)), sqnr_db(exact, int8(fresh))
    assert shipped > LEAST_DB[granularity]
    assert abs(simulated - shipped) < 1.0
