"""An NPU's estimate is a stage of the cells of litert alone, and its columns say that it is one."""

import pytest

from grid.results.rows import result_rows
from grid.stages.run import run_cell
from grid.stages.work import StageError
from quant.engines import catalog
from quant.engines.litert import vela
from quant.engines.litert.vela import Estimate
from tests.grid.tiny import space_of, unmeasured, world

pytest.importorskip("ai_edge_litert")
AXES = "{method: [ptq], granularity: [per_channel], engine: [litert, qnnpack], npu: [ethos-u55-128]}"
FEW = ("equalize=false", "rounding=false", "fuse_bn=true")


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A file where the compiler would be."""
    file = tmp_path / "vela"
    file.write_text("#!/bin/sh\nexit 1\n")
    file.chmod(0o755)
    monkeypatch.setattr(catalog, "VELA", file)
    monkeypatch.setattr(vela, "VELA", file)


def test_only_int8_cells_of_litert_have_it(compiler, tmp_path, tmp_path_factory):
    plan = world(tmp_path_factory).plan(space_of(tmp_path, AXES, overrides=FEW))
    having = [cell for cell in plan.cells if "estimate_npu" in cell.nodes]
    assert [(cell.settings["engine"], cell.settings["method"]) for cell in having] == [("litert", "ptq")]


def test_without_the_compiler_its_cells_are_excluded_with_the_command(monkeypatch, tmp_path, tmp_path_factory):
    monkeypatch.setattr(catalog, "VELA", tmp_path / "none")
    plan = world(tmp_path_factory).plan(space_of(tmp_path, AXES, overrides=FEW))
    (excluded,) = plan.excluded
    assert excluded.settings["engine"] == "litert"
    assert excluded.excluded == "ethos-u55-128 needs ethos-u-vela in an environment of its own: make vela"


def test_the_row_has_the_estimate_and_a_failing_compiler_is_told(compiler, monkeypatch, tmp_path, tmp_path_factory):
    tiny = world(tmp_path_factory)
    plan = unmeasured(tiny.plan(space_of(tmp_path, AXES, overrides=FEW)))
    cell = next(cell for cell in plan.cells if "estimate_npu" in cell.nodes)
    with pytest.raises(StageError, match="vela failed with status 1: it said nothing"):
        run_cell(plan, cell, tiny.context(tmp_path))
    monkeypatch.setattr("grid.stages.devices.npu.estimate", lambda path, npu: Estimate(12.5, 0.95, 1.0, 1.5))
    context = tiny.context(tmp_path)
    run_cell(plan, cell, context)
    row = next(row for row in result_rows(plan, context.stages(), {}) if row["cell"] == cell.name)
    assert row["npu"] == "ethos-u55-128"
    assert (row["npu_ms_estimate"], row["npu_share"], row["npu_sram_mb"], row["npu_flash_mb"]) == (12.5, 0.95, 1.0, 1.5)
