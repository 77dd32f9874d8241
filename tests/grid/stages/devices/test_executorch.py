"""Networks of ExecuTorch on a device without torch, with a process of this machine as the device."""

import dataclasses
import platform
import shutil
import sys

import pytest

from grid.devices.address import PROCESS, Device
from grid.stages.run import run_cell
from grid.stages.work import StageError
from model.errors import InputError
from quant.engines.catalog import missing
from quant.engines.executorch_runner.build import build
from tests.grid.tiny import space_of, world

pytestmark = [
    pytest.mark.skipif(bool(missing("xnnpack") or missing("onnxruntime")), reason="engines are not here"),
    pytest.mark.skipif(shutil.which("c++") is None, reason="no compiler here"),
]
AXES = "{method: [ptq], granularity: [per_channel], engine: [xnnpack], device: [board]}"
FEW = ("equalize=false", "rounding=false", "device_accuracy=true", "latency.seconds=0.05", "fuse_bn=true")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A plan, its context, and its int8 cell; the cache has no libraries yet."""
    folder, tiny = tmp_path_factory.mktemp("executorch"), world(tmp_path_factory)
    plan = tiny.plan(space_of(folder, AXES, overrides=FEW))
    board = Device("board", PROCESS, "", python=sys.executable, folder=str(folder / "there"))
    context = dataclasses.replace(tiny.context(folder), devices=(board,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield plan, context, next(cell for cell in plan.cells if "ptq" in cell.name)


@pytest.mark.long
def test_libraries_must_be_built_and_then_outputs_there_are_those_of_the_host(prepared):
    plan, context, cell = prepared
    with pytest.raises(StageError, match=rf"board: .* are not built\. Run: .*executorch_runner {platform.machine()}"):
        run_cell(plan, cell, context)
    try:
        build(platform.machine())
    except InputError as error:
        pytest.skip(f"no registry: {error}")
    record = run_cell(plan, cell, context)["profile_on_device"]
    assert record["metrics"]["device_levels_max"] <= 1.0
    assert record["metrics"]["device_levels_mean"] < 0.05
    assert record["metrics"]["device_test_ssim"] > 0
    assert record["metrics"]["engine_ratio"] > 0
    assert record["asserted"]["sent_bytes"] > 10e6, "ExecuTorch goes along"
