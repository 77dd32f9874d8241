"""A row for every cell of the plan, in its order, with its status, its reason, and figures from the store alone."""

import csv
import shutil

import pytest

from grid.planning.plan import Cell, Plan
from grid.results.results_csv import write_results_csv
from grid.results.rows import history, result_rows
from grid.results.timing import pooled_latencies
from grid.storage.result_store import StageStore
from tests.grid.measures import RESULT_COLUMNS
from tests.grid.tiny import CELLS, Computed, put, space_of, world

EXCLUDE = "exclude: [{when: {granularity: per_tensor, method: qat}, reason: known to be poor}]"
AXES = "{method: [ptq, qat], granularity: [per_channel, per_tensor], fuse_bn: [false, true]}"
EVALUATED = dict.fromkeys(("mse", "ssim", "abs_rel", "rmse_m", "delta1"), 0.5) | {"size_mb": 1.6, "test_images": 4}
PROFILED = dict.fromkeys(
    ("latency_ms_p50", "latency_ms_p90", "latency_ratio", "latency_ratio_low", "latency_ratio_high"), 1.0
) | {"profiler_step_ms": 2.0, "pairs": 9}


@pytest.fixture(scope="module")
def grid(computed_grid) -> Computed:
    return computed_grid


@pytest.fixture
def plan(tmp_path, tmp_path_factory) -> Plan:
    """Eight combinations of which two are excluded, and two baselines."""
    return world(tmp_path_factory).plan(space_of(tmp_path, AXES, EXCLUDE))


@pytest.fixture
def store(tmp_path) -> StageStore:
    return StageStore(tmp_path / "storage")


def fill(store: StageStore, plan: Plan, cell: Cell, but: tuple[str, ...] = (), graph_hash: str = "") -> None:
    """Made-up results of a cell's stages, with the hash of its int8 network."""
    metrics = {"evaluate": EVALUATED, "profile": PROFILED, "convert": {"graph_hash": graph_hash or cell.name}}
    for stage, node_id in cell.nodes.items():
        if stage not in but and not store.has(node_id):
            node = next(node for node in plan.nodes if node.id == node_id)
            asserted = {"cpu_model": "a cpu"} if stage == "profile" else {}
            put(store, node, metrics.get(stage), asserted=asserted)


def by_name(rows: list[dict]) -> dict[str, dict]:
    return {row["cell"]: row for row in rows}


# ---- one row a cell


def test_rows_are_in_plan_order_and_the_excluded_ones_last(plan, store):
    rows = result_rows(plan, store, {})
    assert [row["cell"] for row in rows] == [cell.name for cell in (*plan.cells, *plan.excluded)]
    assert [row["status"] for row in rows] == ["skipped"] * 8 + ["excluded"] * 2


def test_an_excluded_row_has_the_reason_of_the_search_space_and_its_settings(plan, store):
    row = result_rows(plan, store, {})[-1]
    assert row["reason"] == "known to be poor"
    assert (row["granularity"], row["method"], row["fuse_bn"]) == ("per_tensor", "qat", True)


def test_a_skipped_row_names_the_first_stage_that_is_missing_and_how_to_go_on(plan, store):
    cell = plan.cells[2]
    fill(store, plan, cell, but=("calibrate", "convert", "evaluate", "profile"))
    row = by_name(result_rows(plan, store, {}))[cell.name]
    assert row["status"] == "skipped"
    assert row["reason"] == "calibrate did not run; use --resume to go on"


def test_a_failed_row_has_the_reason_of_its_failed_stage(plan, store):
    cell = plan.cells[2]
    fill(store, plan, cell, but=("convert", "evaluate", "profile"))
    reason = "convert: StageError: too bad (log: /somewhere)"
    failures = {cell.nodes[stage]: reason for stage in ("convert", "evaluate", "profile")}
    rows = by_name(result_rows(plan, store, failures))
    assert (rows[cell.name]["status"], rows[cell.name]["reason"]) == ("failed", reason)
    assert {row["status"] for name, row in rows.items() if name != cell.name} == {"skipped", "excluded"}


def test_a_cell_that_lacks_its_latency_alone_fails_with_its_accuracy_shown(plan, store):
    cell = plan.cells[2]
    fill(store, plan, cell, but=("profile",))
    row = by_name(result_rows(plan, store, {cell.nodes["profile"]: "profile: no cores"}))[cell.name]
    assert (row["status"], row["reason"]) == ("failed", "profile: no cores")
    assert row["test_ssim"] == 0.5
    assert row.get("latency_ms_p50") is None


def test_a_failure_of_an_earlier_attempt_is_forgotten_once_the_result_is_there(plan, store):
    cell = plan.cells[2]
    fill(store, plan, cell)
    row = by_name(result_rows(plan, store, {cell.nodes["convert"]: "convert: once failed"}))[cell.name]
    assert (row["status"], row["reason"]) == ("ok", "")


def test_a_float_row_has_no_granularity_and_no_engine(plan, store):
    row = result_rows(plan, store, {})[0]
    assert (row["method"], row["granularity"], row["engine"], row["fuse_bn"]) == ("fp32", None, None, False)


def test_further_axes_are_columns_where_a_cell_depends_on_them(tmp_path, tmp_path_factory, store):
    axes = "{method: [ptq, qat], qat.weight_decay: [0.0, 0.5], equalize: [true, false]}"
    plan = world(tmp_path_factory).plan(space_of(tmp_path, axes))
    rows = by_name(result_rows(plan, store, {}))
    assert rows["per_channel-qat-qat.weight_decay=0.5-equalize=off"]["qat.weight_decay"] == 0.5
    assert {row.get("qat.weight_decay") for row in rows.values() if row["method"] != "qat"} == {None}
    shown = {name: row.get("equalize") for name, row in rows.items()}
    assert shown == {name: None if "fp32" in name else "equalize=on" in name for name in rows}
    assert not any("latency.seconds" in row for row in rows.values()), "what is equal everywhere is no column"


# ---- one network, two rows


def test_a_later_row_of_an_equal_int8_network_names_the_first_and_no_other(plan, store):
    for cell in plan.cells[2:]:
        alike = cell.settings["method"] == "ptq" and cell.settings["granularity"] == "per_channel"
        fill(store, plan, cell, graph_hash="one" if alike else cell.name)
    rows = by_name(result_rows(plan, store, {}))
    assert {name: row["same_as"] for name, row in rows.items() if row.get("same_as")} == {
        "fuse_bn-per_channel-ptq": "per_channel-ptq"
    }


def test_three_equal_networks_all_name_the_first(plan, store):
    for cell in plan.cells[2:5]:
        fill(store, plan, cell, graph_hash="one")
    names = [cell.name for cell in plan.cells[2:5]]
    rows = by_name(result_rows(plan, store, {}))
    assert [rows[name]["same_as"] for name in names] == [None, names[0], names[0]]


def test_float_rows_are_never_the_same_as_another(plan, store):
    for cell in plan.cells[:2]:
        fill(store, plan, cell)
    assert [row["same_as"] for row in result_rows(plan, store, {})[:2]] == [None, None]


# ---- real results


def test_real_rows_hold_the_figures_of_their_own_records(grid):
    rows = by_name(result_rows(grid.plan, StageStore(grid.context.storage), {}))
    assert {name for name, row in rows.items() if row["status"] == "ok"} == set(CELLS)
    for name, records in grid.records.items():
        row, tested, timed = rows[name], records["evaluate"]["metrics"], records["profile"]["metrics"]
        for figure in ("mse", "ssim", "abs_rel", "rmse_m", "delta1"):
            assert row[f"test_{figure}"] == tested[figure]
        assert row["size_mb"] == tested["size_mb"]
        assert row["sqnr_db"] == tested.get("sqnr_db")
        assert row.get("simulated_ssim") == tested.get("simulated_ssim")
        for figure in ("latency_ms_p50", "latency_ratio", "latency_ratio_high", "profiler_step_ms"):
            assert row[figure] == timed[figure]
        assert row["train_s"] == (records["finetune"]["seconds"] if "finetune" in records else 0)
        tuned = records.get("finetune", {"metrics": {}})["metrics"]
        for figure in ("best_epoch", "weights_changed", "bn_live_steps"):
            assert row.get(figure) == tuned.get(figure)
            assert (row.get(figure) is None) == ("qat" not in name)


def test_calibration_of_a_folded_network_is_shown_as_the_same_as_without_folding(grid):
    rows = by_name(result_rows(grid.plan, StageStore(grid.context.storage), {}))
    same = {name: row["same_as"] for name, row in rows.items() if row.get("same_as")}
    assert same == {"fuse_bn-per_channel-ptq-equalize=off": "per_channel-ptq-equalize=off"}


def test_results_csv_has_every_column_and_leaves_none_empty_that_an_int8_row_needs(grid, tmp_path):
    rows = pooled_latencies(result_rows(grid.plan, StageStore(grid.context.storage), {}))
    path = write_results_csv(rows, tmp_path / "results.csv")
    with path.open(newline="") as file:
        read = csv.DictReader(file)
        lines = list(read)
    assert tuple(read.fieldnames or ())[: len(RESULT_COLUMNS)] == RESULT_COLUMNS
    assert [line["cell"] for line in lines] == [row["cell"] for row in rows]
    may_be_empty = {"reason", "note", "same_as", "latency_as", "mlflow_run_id"}
    for line in lines:
        if line["status"] == "ok":
            float_row = line["method"] == "fp32"
            empty = {column for column in RESULT_COLUMNS if line[column] == ""} - may_be_empty
            absent = (
                {"granularity", "engine", "simulated_ssim", "float_sites", "graph_hash", "artifact"}
                | {"time_in_float", "time_in_conversions"}
                if float_row
                else set()
            )
            noise = {"sqnr_db", "val_sqnr_db", "noise_rms_m", "noise_to_error"}
            trained = {"best_epoch", "weights_changed", "bn_live_steps"}
            absent |= set() if "qat" in line["method"] else trained
            assert empty - (noise if float_row else set()) == absent, line["cell"]


def test_the_artifact_of_a_row_is_the_folder_of_its_int8_network(grid):
    store = StageStore(grid.context.storage)
    for row in result_rows(grid.plan, store, {}):
        if row.get("graph_hash"):
            node = next(cell.nodes["convert"] for cell in grid.plan.cells if cell.name == row["cell"])
            assert row["artifact"] == str(store.path(node))
            assert (store.path(node) / "network.pt").is_file()


def test_the_history_of_a_cell_is_that_of_its_own_fine_tuning(grid, tmp_path):
    store = StageStore(grid.context.storage)
    tuned = grid.records["per_channel-qat-equalize=on"]["finetune"]
    assert history(grid.cell("per_channel-qat-equalize=on"), store) == tuned["history"]
    assert history(grid.cell("per_channel-ptq-equalize=off"), store) == []
    shutil.copytree(store.root / "stages", tmp_path / "stages")
    shutil.rmtree(tmp_path / "stages" / tuned["id"])
    assert history(grid.cell("per_channel-qat-equalize=on"), StageStore(tmp_path)) == []


def test_a_row_notes_kernels_whose_sums_saturate(tmp_path, tmp_path_factory):
    plan = world(tmp_path_factory).plan(space_of(tmp_path, "{engine: [qnnpack, x86]}"))
    store = StageStore(tmp_path)
    for node in plan.nodes:
        asserted = {"saturates": True} if node.settings.get("engine") == "x86" else {}
        if node.stage == "convert":
            put(store, node, asserted=asserted)
    notes = {row["cell"]: row["note"] for row in result_rows(plan, store, {}) if row["method"] != "fp32"}
    assert notes["per_channel-ptq-engine=qnnpack"] == ""
    assert "saturate" in notes["per_channel-ptq-engine=x86"]
