"""The stage that measures on a device, with a process of this machine as the device."""

import dataclasses
import sys

import numpy as np
import pytest
import torch

from grid.devices.address import PROCESS, Device
from grid.results.rows import result_rows
from grid.stages.devices.on_device import like
from grid.stages.run import run_cell
from grid.stages.work import StageError
from tests.grid.tiny import space_of, world

pytest.importorskip("onnxruntime")
AXES = "{method: [ptq], granularity: [per_channel], engine: [onnxruntime, qnnpack], device: [board]}"
FEW = ("equalize=false", "rounding=false", "device_accuracy=true", "latency.seconds=0.05", "fuse_bn=true")


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("on-device")
    tiny = world(tmp_path_factory)
    plan = tiny.plan(space_of(folder, AXES, overrides=FEW))
    board = Device("board", PROCESS, "", python=sys.executable, folder=str(folder / "there"))
    context = dataclasses.replace(tiny.context(folder), devices=(board,))
    cells = {cell.name: cell for cell in plan.cells}
    name = next(name for name in cells if "ptq" in name)
    records = run_cell(plan, cells[name], context)
    return plan, context, name, records["profile_on_device"]


def test_outputs_there_are_those_of_the_host(computed):
    _, _, _, record = computed
    assert record["metrics"]["device_levels_max"] == 0.0


def test_accuracy_there_is_that_of_the_host(computed):
    plan, context, name, record = computed
    row = next(row for row in result_rows(plan, context.stages(), {}) if row["cell"] == name)
    assert record["metrics"]["device_test_ssim"] == pytest.approx(row["test_ssim"], abs=1e-6)


def test_a_row_has_its_device_and_its_ratio_to_the_engines_float_file(computed):
    plan, context, name, _ = computed
    row = next(row for row in result_rows(plan, context.stages(), {}) if row["cell"] == name)
    assert row["status"] == "ok"
    assert row["device"] == "board"
    assert row["cpu_model"].startswith("board: ")
    assert row["timed_beside"] == "onnxruntime float"
    assert row["engine_ratio"] == pytest.approx(row["latency_ratio"]), "here both are one file"


def test_engines_of_pytorch_are_excluded_on_a_device_with_the_reason(computed):
    plan, _, _, _ = computed
    (excluded,) = plan.excluded
    assert excluded.excluded == "qnnpack does not run on board: devices have onnxruntime or litert or xnnpack"


def test_a_device_without_an_address_is_refused(computed):
    _, context, _, _ = computed
    context = dataclasses.replace(context, devices=())
    with pytest.raises(StageError, match="'board' is unknown: --device names it"):
        context.device_called("board")


def test_outputs_take_the_structure_and_the_layout_of_the_network():
    pattern = {"depth": torch.zeros(1, 2, 3, 4), "score": torch.zeros(1, 5)}
    last = np.arange(24, dtype=np.float32).reshape(1, 3, 4, 2)
    found = like(pattern, [last, np.ones((1, 5), np.float32)])
    assert found["depth"].shape == (1, 2, 3, 4)
    assert found["depth"][0, 1, 2, 3] == last[0, 2, 3, 1]
    with pytest.raises(StageError, match="1 outputs"):
        like(pattern, [last])
