"""Plan and store -> result rows: the store is the only source of figures."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from grid.planning.plan import Cell, Plan
from grid.space.settings import groups
from grid.storage.result_store import StageStore

Row = dict[str, Any]
_STANDARD = ("fuse_bn", "granularity", "method", "engine", "seed")
_TEST = ("ssim", "mse", "abs_rel", "rmse_m", "delta1")
_LATENCY = (
    "latency_ms_p50",
    "latency_ms_p90",
    "latency_ratio",
    "latency_ratio_low",
    "latency_ratio_high",
    "profiler_step_ms",
)


def result_rows(plan: Plan, store: StageStore, failures: Mapping[str, str]) -> list[Row]:
    """One row a cell, in plan order: ok, failed (with its reason), skipped (not run yet) or excluded.

    A cell whose int8 network has the hash of an earlier one says ``same_as``: it is the same arithmetic.
    """
    varied = _varied(plan)
    rows = [_row(cell, store, failures) | _further(cell, varied) for cell in plan.cells]
    first: dict[str, str] = {}
    for row in rows:
        if row["graph_hash"]:
            row["same_as"] = first.setdefault(row["graph_hash"], row["cell"])
            row["same_as"] = None if row["same_as"] == row["cell"] else row["same_as"]
    left_out = {"status": "excluded", "same_as": None, "graph_hash": None}
    return rows + [
        {**_settings(cell), **left_out, "reason": cell.excluded, **_further(cell, varied)} for cell in plan.excluded
    ]


def _varied(plan: Plan) -> list[str]:
    """Settings beside the standard columns in which the cells of this grid differ: its further axes."""
    values: dict[str, set[object]] = {}
    for cell in (*plan.cells, *plan.excluded):
        for key, value in _chosen(cell).items():
            values.setdefault(key, set()).add(value)
    return [key for key, seen in values.items() if len(seen) > 1 and key not in (*_STANDARD, "network.encoder")]


def settings_by_place(plan: Plan) -> tuple[Row, dict[str, Row]]:
    """What all cells of a grid have in common, and by cell what tells it from the others: one value an axis."""
    cells = (*plan.cells, *plan.excluded)
    axes = (*_STANDARD, "network.encoder", *_varied(plan))
    own = {cell.name: {key: value for key, value in _chosen(cell).items() if key in axes} for cell in cells}
    common = dict(cells[0].settings) if cells else {}
    for cell in cells:
        common = {key: value for key, value in common.items() if key in cell.settings and cell.settings[key] == value}
    return {key: value for key, value in common.items() if key not in axes}, own


def _further(cell: Cell, varied: list[str]) -> Row:
    chosen = _chosen(cell)
    return {key: chosen[key] for key in varied if key in chosen}


def _chosen(cell: Cell) -> Row:
    """What the cell depends on, as search spaces write it: a group that may be off is also true or false."""
    chosen: Row = dict(cell.relevant)
    for name, (_, optional) in groups().items():
        if optional and name in cell.relevant:
            chosen[name] = False
        elif optional and any(key.startswith(f"{name}.") for key in cell.relevant):
            chosen[name] = True
    return chosen


def _settings(cell: Cell) -> Row:
    row: Row = {"cell": cell.name, **{key: cell.settings.get(key) for key in _STANDARD}}
    row["encoder"] = cell.settings["network.encoder"]
    if row["method"] == "fp32":
        row["granularity"] = None
        row["engine"] = cell.relevant.get("engine")
    return row


def _row(cell: Cell, store: StageStore, failures: Mapping[str, str]) -> Row:
    row: Row = {**_settings(cell), "status": "ok", "reason": "", "same_as": None, "graph_hash": None}
    missing = [stage for stage, node in cell.nodes.items() if not store.has(node)]
    if missing:
        reason = next((failures[node] for node in cell.nodes.values() if node in failures), None)
        row["status"] = "failed" if reason else "skipped"
        row["reason"] = reason or f"{missing[0]} did not run; use --resume to go on"
    records = {stage: store.record(node) for stage, node in cell.nodes.items() if stage not in missing}
    metrics = {stage: record["metrics"] for stage, record in records.items()}
    if "evaluate" in metrics:
        found = metrics["evaluate"]
        row |= {f"test_{name}": found[name] for name in _TEST}
        row |= {name: found.get(name) for name in ("sqnr_db", "simulated_ssim", "size_mb")}
    if "profile" in metrics:
        row |= {name: metrics["profile"][name] for name in _LATENCY}
        row["cpu_model"] = records["profile"]["asserted"]["cpu_model"]
    if "convert" in metrics:
        row["graph_hash"] = metrics["convert"].get("graph_hash")
        row["artifact"] = str(store.path(cell.nodes["convert"]))
        state = records["convert"]["asserted"]
        row["float_sites"] = sum(count for name, count in state.items() if name.endswith("_off"))
    if "mix" in records:
        row["kept_float"] = " ".join(records["mix"]["asserted"]["float_sites"])
    if "analyze" in records:
        row["analysis"] = str(store.path(cell.nodes["analyze"]))
    row["train_s"] = sum(records[stage]["seconds"] for stage in ("train", "finetune") if stage in records)
    row["seconds"] = sum(record["seconds"] for record in records.values())
    return row


def commands(plan: Plan, command: str) -> dict[str, str]:
    """The command line that runs one cell of a grid: that of the grid, with the cell's values of all axes.

    A cell of this name is then in the results; float baselines stand beside it as in the grid.
    """
    varied = [key for key in (*_STANDARD, *_varied(plan)) if key != "seed"]
    seeds = {cell.settings["seed"] for cell in plan.cells}
    found = {}
    for cell in plan.cells:
        chosen = {**_chosen(cell), "method": cell.settings["method"]}
        parts = [f"--set {key}={_spelled(chosen[key])}" for key in varied if key in chosen]
        parts += [f"--seeds {cell.settings['seed']}"] if len(seeds) > 1 else []
        found[cell.name] = " ".join([command, *parts])
    return found


def _spelled(value: object) -> str:
    return shlex.quote(value if isinstance(value, str) else json.dumps(value))


def history(cell: Cell, store: StageStore) -> list[dict[str, float]]:
    """Figures by epoch of the cell's own fine-tuning, or of the float training it starts from."""
    for stage in ("finetune", "train"):
        if stage in cell.nodes and store.has(cell.nodes[stage]):
            return store.record(cell.nodes[stage])["history"]
    return []
